"use strict";

const { PerformanceObserver } = require("node:perf_hooks");
const { setTimeout: sleep } = require("node:timers/promises");

/** Milliseconds until the observer has received the last pauses. */
const DELIVERY = 50;

/** Adds to the result of `use` how long V8's collector stopped the thread: `{ …, pause, pauses }`, in ms. */
async function withPauses(use) {
  let pause = 0;
  let pauses = 0;
  const observer = new PerformanceObserver((list) => {
    for (const { duration } of list.getEntries()) {
      pause = Math.max(pause, duration);
      pauses += duration;
    }
  });
  observer.observe({ entryTypes: ["gc"] });
  const result = await use();
  await sleep(DELIVERY);
  observer.disconnect();
  return { ...result, pause, pauses };
}

module.exports = { withPauses };
