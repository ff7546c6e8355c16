"use strict";

const http = require("node:http");
const express = require("express");
const session = require("express-session");
const { stayOn } = require("../cores.js");
const { listen } = require("../listen.js");
const { loginData, sessionOptions } = require("../session.js");
const { Usage } = require("./usage.js");

/** Creates an Express app with express-session on a store. */
function createApp(store) {
  const app = express();
  const usage = new Usage();
  app.use(usage.count());
  app.get("/plain", (_req, res) => res.json({ name: "nobody" }));
  app.get("/usage", usage.tell());
  app.use(session(sessionOptions(store)));
  app.get("/login", (req, res) => {
    Object.assign(req.session, loginData());
    res.json({ name: req.session.user.name });
  });
  app.use((req, res, next) => (req.session.user ? next() : res.sendStatus(401)));
  app.get("/read", (req, res) => res.json({ name: req.session.user.name }));
  app.get("/change", (req, res) => {
    req.session.views = (req.session.views ?? 0) + 1;
    res.json({ name: req.session.user.name });
  });
  return app;
}

/** Serves it, on one core if one is given. Resolves to the address. */
function openApp(store, core) {
  if (core !== undefined) stayOn(core);
  return listen(http.createServer(createApp(store)));
}

module.exports = { openApp };
