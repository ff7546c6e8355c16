"use strict";

// A server in a separate process, for tests that crash it: `node guard-child.js [guarded]`.
const { MemoryStore, guardSession } = require("../..");
const { FluidAuthSession } = require("./fluidauth-session");
const { serve } = require("./guard-app");

const session = new FluidAuthSession({ store: new MemoryStore() });
if (process.argv[2] === "guarded") guardSession(session);
serve(session).then(({ port }) => process.send(port));
process.on("disconnect", () => process.exit());
