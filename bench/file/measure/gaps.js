"use strict";

const { setTimeout: sleep } = require("node:timers/promises");
const { after, watch } = require("../../gaps/watch.js");
const { Ids } = require("../../sessions.js");
const { closedLoop } = require("../../closed-loop.js");
const { sessionsOf, sessionsUntil } = require("../sessions.js");
const { openStore } = require("../stores.js");

const IN_FLIGHT = 4096;
const SAMPLE = 100_000;
const MOST_A_SECOND = 200_000;
/** How long the idle event loop is watched for comparison, in milliseconds. */
const QUIET = 500;
/** How long sessions are created before the measurement, in milliseconds. */
const WARM_UP = 500;
/** How long it is watched after the sweep, to include later garbage collection, in milliseconds. */
const AFTERMATH = 250;
/** Milliseconds until the sessions expire. Most of them are created before. */
const SOON = 200;
const EXPIRING_A_MILLISECOND = 100;

/** Opens a store, and returns it with a function that watches its event loop: with gets, if these are synchronous. */
function openWatched({ idsFile, size, ...args }) {
  const store = openStore(args);
  const sample = Ids.readFrom(idsFile).sample(SAMPLE, size);
  const getsATurn = store.getsAtOnce ? undefined : 0;
  return { store, watchUntil: (isOver) => watch(store, sample, isOver, getsATurn) };
}

/**
 * Measures the longest gap in milliseconds while thousands of creates are in flight. Starts after they were started,
 * because only the benchmark starts all of them in one turn of the event loop.
 */
async function gapOfCreates({ seconds, ...args }) {
  const { store, watchUntil } = openWatched(args);
  global.gc();
  const quiet = await watchUntil(after(QUIET));
  const fresh = Ids.random((MOST_A_SECOND * (WARM_UP + seconds * 1000)) / 1000);
  const isOver = after(WARM_UP + seconds * 1000);
  const sessions = sessionsUntil(isOver, fresh);
  const creating = closedLoop(IN_FLIGHT, sessions, (session) => store.create(session));
  await sleep(WARM_UP);
  const longest = await watchUntil(isOver);
  await store.remove(fresh.slice(0, await creating));
  await store.close();
  return { quiet, longest };
}

/** Measures the longest gap in milliseconds while `expired` sessions, which expire at the same time, are swept. */
async function gapOfClean({ expired, atATime, ...args }) {
  const { store, watchUntil } = openWatched(args);
  await store.prepareClean?.();
  const ids = Ids.random(expired);
  const expiry = Date.now() + SOON + expired / EXPIRING_A_MILLISECOND;
  const sessions = sessionsOf(ids, { expiresOf: () => expiry });
  await closedLoop(IN_FLIGHT, sessions, (session) => store.create(session));
  await sleep(Math.max(0, expiry + 1 - Date.now()));
  global.gc();
  const quiet = await watchUntil(after(QUIET));
  const start = performance.now();
  let end = Number.POSITIVE_INFINITY;
  const watching = watchUntil((now) => now >= end + AFTERMATH);
  await store.clean(atATime);
  end = performance.now();
  const longest = await watching;
  const left = await store.countLeft(ids);
  if (left > 0) throw new Error(`${left} of ${expired} expired sessions were not swept`);
  await store.close();
  return { quiet, longest, took: end - start };
}

module.exports = { gapOfCreates, gapOfClean };
