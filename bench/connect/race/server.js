"use strict";

// A process for one store and one app.
const { serve } = require("../../serve.js");
const { listen } = require("../listen.js");
const { openStore } = require("../stores.js");
const { Gate } = require("./gate.js");

const APPS = {
  express: (options) => require("./express-app.js").expressServer(options),
  fastify: (options) => require("./fastify-app.js").fastifyServer(options),
};

/** For an absent session some stores return nothing, and one returns an error for the missing file. */
const isStoredIn = (store) => (sid) =>
  new Promise((resolve, reject) => {
    store.get(sid, (error, session) => {
      if (error && error.code !== "ENOENT") reject(error);
      else resolve(Boolean(session));
    });
  });

/** Starts the server. Resolves to its address. */
async function open({ store: name, app, directory, resave }) {
  const store = openStore(name, directory);
  return listen(await APPS[app]({ store, gate: new Gate(), isStored: isStoredIn(store), resave }));
}

serve({ open });
