"use strict";

const { setTimeout: sleep } = require("node:timers/promises");

const SHORTLY = 10;
const PATIENCE = 60_000;

/** Polls `isSo` every few milliseconds, and resolves to its first truthy result. */
async function until(isSo, what, patience = PATIENCE) {
  const end = performance.now() + patience;
  for (;;) {
    const value = await isSo();
    if (value) return value;
    if (performance.now() > end) throw new Error(`waited ${patience} ms in vain until ${what}`);
    await sleep(SHORTLY);
  }
}

module.exports = { until };
