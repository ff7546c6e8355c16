"use strict";

const { PerformanceObserver } = require("node:perf_hooks");
const { setTimeout: sleep } = require("node:timers/promises");

/** Milliseconds in which the observer is told of the last pauses. */
const DELIVERY = 50;

/** What `use` resolves to, and how long V8's collector stopped the thread meanwhile: `{ …, pause, pauses }`, in ms. */
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
