"use strict";

const { after } = require("../../gaps/watch.js");
const { Ids, farOff } = require("../../sessions.js");
const { closedLoop } = require("../../closed-loop.js");
const { sessionsOf, sessionsUntil, until } = require("../sessions.js");
const { directoryOf, openStore } = require("../stores.js");
const { costOf } = require("./cost.js");
const { opened } = require("./opened.js");

const GETS = 40_000;
/** The number of gets for a store that reads a file for each. */
const SLOW_GETS = 4000;
const WARM_UP = 2000;
/** An upper limit of creates a second. A faster store ends its round early. */
const MOST_A_SECOND = 200_000;

let touches = 0;

async function open({ idsFile, size, ...args }) {
  const store = openStore(args);
  const ids = Ids.readFrom(idsFile).slice(0, size);
  Object.assign(opened, { store, size, ids, folder: directoryOf(args.store, args.directory) });
  if (store.startsEmpty) await store.fill(sessionsOf(ids));
  if (store.getsAtOnce) await getOneByOne(ids); // Maps all pages, as in a server that has run for a while.
}

async function getOneByOne(sample) {
  const { store } = opened;
  let hits = 0;
  for (let i = 0; i < sample.length; i++) {
    if ((await store.get(sample.at(i))) !== null) hits++;
  }
  if (hits < sample.length) throw new Error(`${sample.length - hits} of ${sample.length} were not found`);
}

/** Nanoseconds per get, including making the id. */
async function get() {
  const { store, ids } = opened;
  const sample = ids.sample(store.getsAtOnce ? GETS : SLOW_GETS);
  await getOneByOne(ids.sample(WARM_UP));
  global.gc({ type: "minor" });
  const start = performance.now();
  await getOneByOne(sample);
  return ((performance.now() - start) * 1e6) / sample.length;
}

/** Measures creates, `inFlight` at a time. `undo` must follow. */
async function create({ inFlight, seconds }) {
  const { store, folder } = opened;
  const fresh = Ids.random(Math.ceil(MOST_A_SECOND * seconds));
  global.gc({ type: "minor" });
  const cost = await costOf(folder, () => {
    const sessions = sessionsUntil(after(seconds * 1000), fresh);
    return closedLoop(inFlight, sessions, (session) => store.create(session));
  });
  opened.created = fresh.slice(0, cost.calls);
  return cost;
}

/** Deletes the created sessions, and completes deferred work before the next round. */
async function undo() {
  const { store, size, created } = opened;
  await store.remove(created);
  await store.drain?.();
  opened.ids = opened.ids.slice(0, size);
}

/** Measures touches of random sessions, `inFlight` at a time. */
async function touch({ inFlight, seconds }) {
  const { store, folder, ids } = opened;
  const sample = ids.sample(Math.ceil(MOST_A_SECOND * seconds));
  global.gc({ type: "minor" });
  const cost = await costOf(folder, () =>
    closedLoop(inFlight, until(after(seconds * 1000), sample), async (id) => {
      // Each expiry is new, or the store would have nothing to write.
      if (!(await store.touch(id, farOff(ids.length + touches++))))
        throw new Error("a session was not found");
    }),
  );
  await store.drain();
  return cost;
}

module.exports = { create, get, open, touch, undo };
