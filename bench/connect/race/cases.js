"use strict";

const { labelOf } = require("../stores.js");

/** How the slow request ends: it saves a changed session, touches an unchanged one, or saves an unchanged one. */
const HOWS = ["set", "touch", "resave"];

/** @fastify/session never touches, and saves unchanged sessions by default. */
const OF_FASTIFY = ["set", "resave"];

/** `processes`: if 2, the slow request and the logout are in different processes. */
const CASES = [
  { store: "memory" },
  { store: "file" },
  { store: "file", processes: 2 },
  { store: "lazy" },
  { store: "memory", app: "fastify", hows: OF_FASTIFY },
  { store: "file", app: "fastify", hows: OF_FASTIFY },
  { store: "express" },
  { store: "memorystore" },
  { store: "sessionFiles" },
  { store: "sqlite" },
  { store: "connectSqlite" },
].map((each) => ({ app: "express", processes: 1, hows: HOWS, ...each }));

const titleOf = ({ store, app, processes }) =>
  labelOf(store) + (app === "fastify" ? ", @fastify/session" : "") + (processes > 1 ? ", two processes" : "");

module.exports = { CASES, HOWS, titleOf };
