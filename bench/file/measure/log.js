"use strict";

const { setTimeout: sleep } = require("node:timers/promises");
const { closedLoop } = require("../../closed-loop.js");
const { Ids, farOff } = require("../../sessions.js");
const { sessionsOf } = require("../sessions.js");
const { loadStore, openStore } = require("../stores.js");
const { opened } = require("./opened.js");

const IN_FLIGHT = 4096;
/** The number of sessions from which the bytes per session in the log are derived. */
const PROBE = 1000;
/** If the share of the sessions in the log falls below this, they are written again. */
const ENOUGH = 0.9;
/** Gets between two turns of the event loop. */
const GETS_A_TURN = 20;
const PAUSE = 1;

/** Returns why our store cannot use its log or `"everysec"` here: `{ noLog?, noEverysec? }`. */
async function faults(args) {
  const store = openStore(args);
  await store.fill(sessionsOf(Ids.random(1)));
  const noLog = faultOfLog(await store.logBytes());
  await store.close();
  try {
    await loadStore({ ...args, store: "everysec" })().close();
    return { noLog };
  } catch (error) {
    if (error.code !== "ERR_INVALID_OPTION") throw error;
    return { noLog, noEverysec: error.message };
  }
}

/** Derives the reason from the bytes of the log after a write. */
function faultOfLog(bytes) {
  if (bytes === undefined) return "this build has no log (stats().log is null)";
  return bytes === 0 ? "the log is not used here (stats().log.usedBytes is 0 after a write)" : undefined;
}

/** Writes, so that the store starts its log, and then drains it. */
async function emptyLog() {
  const { store } = opened;
  const ids = Ids.random(1);
  await store.fill(sessionsOf(ids));
  await store.remove(ids);
  await store.drain();
}

let bytesOfOne;
let writes = 0;

/**
 * Creates sessions in the log, and resolves to how many of them are in it. Later calls rewrite the same sessions if the
 * log was drained. `undo` must follow.
 */
async function fillLog({ count }) {
  const { store } = opened;
  const inLog = async () => Math.min(count, Math.floor((await store.logBytes()) / bytesOfOne) || 0);
  if (bytesOfOne === undefined) {
    await emptyLog();
    const fresh = Ids.random(count);
    const probe = Math.min(PROBE, count);
    await store.fill(sessionsOf(fresh, { to: probe }));
    bytesOfOne = (await store.logBytes()) / probe;
    await store.fill(sessionsOf(fresh.slice(probe), { firstNumber: probe }));
    opened.created = fresh;
    opened.ids = opened.ids.concat(fresh);
  } else if (bytesOfOne > 0 && (await inLog()) < ENOUGH * count) {
    writes++;
    await closedLoop(IN_FLIGHT, opened.created, (id) => store.touch(id, farOff(count + writes)));
  }
  return inLog();
}

let watching;
let isOver;

/** Gets sessions until `stopGets` is called. */
async function startGets() {
  isOver = false;
  watching = watchGets(opened);
}

/** Resolves to the longest get in milliseconds. */
async function stopGets() {
  isOver = true;
  return watching;
}

async function watchGets({ store, ids }) {
  const sample = ids.sample(ids.length);
  let longest = 0;
  for (let i = 0; !isOver; i++) {
    const start = performance.now();
    if ((await store.get(sample.at(i % sample.length))) === null) throw new Error("a session was not found");
    longest = Math.max(longest, performance.now() - start);
    if (i % GETS_A_TURN === 0) await sleep(PAUSE);
  }
  return longest;
}

module.exports = { emptyLog, faults, fillLog, startGets, stopGets };
