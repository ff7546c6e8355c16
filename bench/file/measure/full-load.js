"use strict";

const { createHistogram } = require("node:perf_hooks");
const { closedLoop } = require("../../closed-loop.js");
const { after } = require("../../gaps/watch.js");
const { Ids } = require("../../sessions.js");
const { sessionsOf, until } = require("../sessions.js");
const { directoryOf, openStore } = require("../stores.js");
const { costOf, perCall } = require("./cost.js");

const IN_FLIGHT = 4096;
/** Milliseconds before the first call that counts: the benchmark starts thousands in one turn, an app does not. */
const WARM_UP = 500;
/** How many ids are made at once. */
const WAVE = 1000;
const LOOK = 100;

function* endlessSessions() {
  for (let firstNumber = 0; ; firstNumber += WAVE) yield* sessionsOf(Ids.random(WAVE), { firstNumber });
}

/** Counts how often the log shrinks: `{ drains() }`. */
function watchLog(store) {
  let drains = 0;
  let last = 0;
  const look = async () => {
    const bytes = await store.logBytes();
    if (bytes < last) drains++;
    last = bytes;
  };
  const timer = setInterval(look, LOOK);
  return {
    drains() {
      clearInterval(timer);
      return drains;
    },
  };
}

/**
 * Creates sessions with thousands in flight: `{ longest, p99, drains?, perSecond, … }`. `longest` is in milliseconds,
 * the rest is the cost of a call. The sessions stay in the store.
 */
async function fullLoad({ seconds, ...args }) {
  const store = openStore(args);
  const times = createHistogram();
  const watch = (await store.logBytes?.()) === undefined ? undefined : watchLog(store);
  const start = performance.now() + WARM_UP;
  const create = async (session) => {
    const began = performance.now();
    await store.create(session);
    // In microseconds, because a histogram has whole numbers.
    if (began >= start) times.record(Math.ceil(1000 * (performance.now() - began)));
  };
  const isOver = after(WARM_UP + 1000 * seconds);
  const cost = await costOf(directoryOf(args.store, args.directory), () =>
    closedLoop(IN_FLIGHT, until(isOver, endlessSessions()), create),
  );
  const drains = watch?.drains();
  await store.close();
  return { longest: times.max / 1000, p99: times.percentile(99) / 1000, drains, ...perCall([cost]) };
}

module.exports = { fullLoad };
