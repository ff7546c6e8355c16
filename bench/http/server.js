"use strict";

// A process for one store: an Express app with a session layer that calls it as FluidAuth does.
const http = require("node:http");
const cookieParser = require("cookie-parser");
const express = require("express");
const { stayOn } = require("../connect/cores.js");
const { listen } = require("../connect/listen.js");
const { Usage } = require("../connect/load/usage.js");
const { CookieSession } = require("../../examples/login/session.js");
const { serve } = require("../serve.js");
const { userOf } = require("../sessions.js");
const { openStore } = require("./stores.js");

const HOUR = 3_600_000;

let logins = 0;

function createApp(store) {
  const app = express();
  const usage = new Usage();
  app.use(usage.count());
  app.get("/usage", usage.tell());
  const session = new CookieSession({
    store,
    secret: "a secret of the benchmark, which is not secret",
    name: "session",
    duration: HOUR,
    serializeUser: ({ id }) => id,
    deserializeUser: (id) => ({ id, name: "Ada Lovelace" }),
  });
  app.use(cookieParser(), session.manage());
  app.get("/login", (req, res, next) => {
    req.session.create({ id: userOf(logins++) }).then(() => res.json({ name: req.user.name }), next);
  });
  app.use((req, res, next) => (req.user ? next() : res.sendStatus(401)));
  app.get("/read", (req, res) => res.json({ name: req.user.name }));
  return app;
}

/** Starts the server. Resolves to its address. */
function open({ store, directory, core }) {
  if (core !== undefined) stayOn(core);
  return listen(http.createServer(createApp(openStore(store, directory))));
}

serve({ open });
