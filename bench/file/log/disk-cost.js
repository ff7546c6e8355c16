"use strict";

const { setTimeout: sleep } = require("node:timers/promises");
const { settleDisk } = require("../../disk.js");
const { rotated } = require("../../stats.js");
const { costOf } = require("../measure/cost.js");
const { withChild } = require("../run.js");

/** Returns the disk writes per create, minus the writes of the idle machine. */
function eachOf(costs, calls, idle) {
  const without = (figure) =>
    costs
      .map((cost) => cost[figure] - (cost.seconds * idle[figure]) / idle.seconds)
      .reduce((sum, value) => sum + value, 0) / calls;
  return { bytes: without("bytes"), flushes: without("flushes") };
}

/**
 * Measures the disk writes of a create with one in flight: `{ idle: { bytes, flushes }[], rows: { store, rounds: {
 * bytes, flushes, closed }[] }[] }`. `closed`: the bytes including the store's close. `idle`: per second.
 */
async function watchDisk(run) {
  const { diskRounds, diskSeconds: seconds } = run.plan;
  const rows = run.present.map((store) => ({ store, rounds: [] }));
  const idles = [];
  for (let round = 0; round < diskRounds; round++) {
    run.progress("bytes and flushes", `: round ${round + 1} of ${diskRounds}`);
    settleDisk();
    const idle = await costOf(run.directory, () => sleep(1000 * seconds));
    idles.push({ bytes: idle.bytes / idle.seconds, flushes: idle.flushes / idle.seconds });
    for (const { store, rounds } of rotated(rows, round)) {
      settleDisk();
      const args = { ...run.argsOf(store), seconds };
      const { creating, closing } = await withChild((child) => child.call("diskCost", args));
      const closed = eachOf([creating, closing], creating.calls, idle);
      rounds.push({ ...eachOf([creating], creating.calls, idle), closed: closed.bytes });
    }
  }
  return { idle: idles, rows };
}

module.exports = { watchDisk };
