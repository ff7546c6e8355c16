"use strict";

const { after } = require("../../gaps/watch.js");
const { Ids } = require("../../sessions.js");
const { closedLoop } = require("../../closed-loop.js");
const { sessionsUntil } = require("../sessions.js");
const { openStore } = require("../stores.js");

const GETS = 40_000;
/** Of a store that reads a file for each get. */
const SLOW_GETS = 4000;
const WARM_UP = 2000;
/** What creates more than this is through before its time. */
const MOST_A_SECOND = 200_000;

let store;
let ids;

async function open({ store: name, directory, idsFile, size }) {
  store = openStore(name, directory);
  ids = Ids.readFrom(idsFile).slice(0, size);
  if (store.getsAtOnce) await getOneByOne(ids); // As in a server that is up for a while: all pages are mapped.
}

async function getOneByOne(sample) {
  let hits = 0;
  for (let i = 0; i < sample.length; i++) {
    if ((await store.get(sample.at(i))) !== null) hits++;
  }
  if (hits < sample.length) throw new Error(`${sample.length - hits} of ${sample.length} were not found`);
}

/** Nanoseconds a get, with what making the id takes. */
async function get() {
  const sample = ids.sample(store.getsAtOnce ? GETS : SLOW_GETS);
  await getOneByOne(ids.sample(WARM_UP));
  global.gc({ type: "minor" });
  const start = performance.now();
  await getOneByOne(sample);
  return ((performance.now() - start) * 1e6) / sample.length;
}

/** Creates a second, `inFlight` at a time; they are deleted untimed. */
async function create({ inFlight, seconds }) {
  const fresh = Ids.random(MOST_A_SECOND * seconds);
  global.gc({ type: "minor" });
  const start = performance.now();
  const sessions = sessionsUntil(after(seconds * 1000), fresh);
  const created = await closedLoop(inFlight, sessions, (session) => store.create(session));
  const took = performance.now() - start;
  await store.remove(fresh.slice(0, created));
  return (created * 1000) / took;
}

module.exports = { create, get, open };
