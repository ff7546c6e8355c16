"use strict";

const { RedisStore } = require("../..");
const { closedLoop } = require("../closed-loop.js");
const { until } = require("../file/sessions.js");
const { after } = require("../gaps/watch.js");
const { farOff } = require("../sessions.js");
const { Sample, newSessions } = require("./sessions.js");

const SAMPLE = 100_000;
const FILLED_AT_ONCE = 256;

// The stores stay open until this process ends.
const stores = [];
let ids;
let filled;
let content;
let touches = 0;
let url;

/**
 * Returns a separate store for each number, with its own connections and without sweeps, which are not part of the
 * calls.
 */
function storeOf(number) {
  stores[number] ??= new RedisStore({ url, sweepInterval: 0 });
  return stores[number];
}

/** Opens a store, and fills it with sessions. */
async function fillRedis({ url: ofServer, size, content: ofEach }) {
  url = ofServer;
  content = ofEach;
  filled = size;
  const sample = new Sample(size, SAMPLE);
  const sessions = newSessions(size, { content, keep: sample.keep });
  await closedLoop(FILLED_AT_ONCE, sessions, (session) => storeOf(0).create(session));
  ids = sample.ids;
}

function* someIds() {
  for (;;) yield ids.at(Math.floor(Math.random() * ids.length));
}

function* freshSessions() {
  for (const session of newSessions(Number.MAX_SAFE_INTEGER, { firstNumber: filled, content })) {
    filled++;
    yield session;
  }
}

const CALLS = {
  get: { items: someIds, start: (store, id) => store.get(id) },
  touch: { items: someIds, start: (store, id) => store.touch(id, farOff(touches++)) },
  create: { items: freshSessions, start: (store, session) => store.create(session) },
};

/** Makes calls on `count` stores, with `inFlight` on each, and resolves to the number of calls. */
async function callRedis({ call, count, inFlight, seconds }) {
  const { items, start } = CALLS[call];
  const callers = Array.from({ length: count }, (_, number) => storeOf(number));
  await Promise.all(callers.map((store) => store.get("none")));
  const shared = until(after(1000 * seconds), items());
  const calls = await Promise.all(
    callers.map((store) => closedLoop(inFlight, shared, (item) => start(store, item))),
  );
  return calls.reduce((sum, of) => sum + of, 0);
}

module.exports = { callRedis, fillRedis };
