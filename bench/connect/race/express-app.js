"use strict";

const http = require("node:http");
const express = require("express");
const session = require("express-session");
const { loginData, sessionOptions } = require("../session.js");

/** With `resave`, unchanged sessions are saved, too. */
function expressServer({ store, gate, isStored, resave }) {
  const app = express();
  // Otherwise Express prints each error of a store.
  app.set("env", "test");
  app.get("/reached/:sid", (req, res) => gate.reached(req.params.sid).then(() => res.json({})));
  app.get("/open/:sid", (req, res) => {
    gate.open(req.params.sid);
    res.json({});
  });
  app.get("/stored/:sid", (req, res, next) => {
    isStored(req.params.sid).then((stored) => res.json({ stored }), next);
  });
  app.use(session(sessionOptions(store, resave)));
  app.get("/login", (req, res) => {
    Object.assign(req.session, loginData());
    res.json({ sid: req.sessionID });
  });
  app.get("/slow", async (req, res) => {
    const { user } = req.session;
    await gate.wait(req.sessionID);
    if (req.query.change) req.session.changed = true;
    res.json({ user });
  });
  app.get("/logout", (req, res, next) => {
    req.session.destroy((error) => (error ? next(error) : res.json({})));
  });
  app.get("/me", ({ session: { user, changed } }, res) => res.json({ user, changed }));
  return http.createServer(app);
}

module.exports = { expressServer };
