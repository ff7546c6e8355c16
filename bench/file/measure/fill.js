"use strict";

const { mkdirSync } = require("node:fs");
const { Ids } = require("../../sessions.js");
const { closedLoop } = require("../../closed-loop.js");
const { sessionsOf } = require("../sessions.js");
const { directoryOf, openStore } = require("../stores.js");

const IN_FLIGHT = 4096;

/** Fills a new store with the first of the ids in a file. */
async function fill({ idsFile, size, ...args }) {
  mkdirSync(directoryOf(args.store, args.directory), { mode: 0o700 });
  const store = openStore(args);
  await store.fill(sessionsOf(Ids.readFrom(idsFile), { to: size }));
  await store.close();
}

/** Replaces the oldest sessions by those of another file: creates some, then deletes the same number of old ones. */
async function churn({ idsFile, freshFile, size, ...args }) {
  const store = openStore(args);
  const old = Ids.readFrom(idsFile).slice(0, size);
  const fresh = Ids.readFrom(freshFile);
  const all = old.concat(fresh);
  for (let from = 0; from < fresh.length; from += IN_FLIGHT) {
    const to = Math.min(from + IN_FLIGHT, fresh.length);
    const sessions = sessionsOf(fresh.slice(from, to), { firstNumber: size + from });
    await closedLoop(IN_FLIGHT, sessions, (session) => store.create(session));
    await store.remove(all.slice(from, to));
  }
  await store.close();
}

module.exports = { churn, fill };
