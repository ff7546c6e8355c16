"use strict";

const { labelOf } = require("../stores.js");

/** How the slow request ends: it saves what it has changed, touches what it has not, or saves that too. */
const HOWS = ["set", "touch", "resave"];

/** @fastify/session touches nothing, and by default saves what has not changed. */
const OF_FASTIFY = ["set", "resave"];

/** `processes`: with two, the slow request is in one and the logout in the other. */
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
