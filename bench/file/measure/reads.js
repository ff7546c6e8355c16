"use strict";

const { setImmediate: turn } = require("node:timers/promises");
const { FileStore, MemoryStore } = require("../../..");
const { closedLoop } = require("../../closed-loop.js");
const { after } = require("../../gaps/watch.js");
const { Ids } = require("../../sessions.js");
const { sessionsOf, sessionsUntil } = require("../sessions.js");

const FILLING = 4096;
const GETS = 40_000;
/** Gets between two turns of the event loop, in which writes proceed. */
const GETS_A_TURN = 50;
const MOST_A_SECOND = 200_000;

const OPEN = {
  file: (directory) => new FileStore({ path: directory, sweepInterval: 0 }),
  memory: () => new MemoryStore({ sweepInterval: 0 }),
};

let store;
let ids;

const create = (session) => store.create(session);

async function openToRead({ kind, directory, size }) {
  store = OPEN[kind](directory);
  ids = Ids.random(size);
  await closedLoop(FILLING, sessionsOf(ids), create);
  await getAll(ids); // Maps all pages, as in a server that has run for a while.
}

async function getAll(sample) {
  for (let i = 0; i < sample.length; i++) {
    if ((await store.get(sample.at(i))) === null) throw new Error("a session was not found");
  }
}

/** Nanoseconds per get, including making the id. */
async function read() {
  const sample = ids.sample(GETS);
  global.gc({ type: "minor" });
  const start = performance.now();
  await getAll(sample);
  return ((performance.now() - start) * 1e6) / GETS;
}

/** Nanoseconds per get, without the turns of the event loop. */
async function readInTurns(isOver) {
  const sample = ids.sample(GETS);
  let took = 0;
  let gets = 0;
  do {
    const wave = sample.slice(gets % GETS, (gets % GETS) + GETS_A_TURN);
    const start = performance.now();
    await getAll(wave);
    took += performance.now() - start;
    gets += wave.length;
    await turn();
  } while (!isOver(performance.now()));
  return (took * 1e6) / gets;
}

/** The same on an idle store, and with creates in flight: `{ quiet, busy }`. */
async function readDuringCreates({ inFlight, seconds }) {
  const fresh = Ids.random(MOST_A_SECOND * seconds);
  global.gc();
  const quiet = await readInTurns(after(1000 * seconds));
  const isOver = after(1000 * seconds);
  const creating = closedLoop(inFlight, sessionsUntil(isOver, fresh), create);
  const busy = await readInTurns(isOver);
  const created = await creating;
  await closedLoop(FILLING, fresh.slice(0, created), (id) => store.delete(id));
  return { quiet, busy };
}

module.exports = { openToRead, read, readDuringCreates };
