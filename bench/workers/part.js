"use strict";

const path = require("node:path");
const { withChildren } = require("../spawn.js");
const { rotated } = require("../stats.js");
const { sections } = require("./report.js");
const { judge } = require("./targets.js");

const CHILD = path.join(__dirname, "child.js");
const THREADS = [1, 2];

/** Measures the gets a second of a store that worker threads share: `{ size, rows: { threads, rounds }[] }`. */
async function run({ workerSize: size, workerRounds, workerSeconds: seconds }, progress) {
  const rows = THREADS.map((threads) => ({ threads, rounds: [] }));
  const use = async (child) => {
    progress("workers", ": filling");
    await child.call("open", { size, threads: Math.max(...THREADS) });
    // Round -1 is for the compiler.
    for (let round = -1; round < workerRounds; round++) {
      progress("workers", `: round ${round + 1} of ${workerRounds}`);
      for (const { threads, rounds } of rotated(rows, round)) {
        const perSecond = await child.call("gets", { threads, seconds });
        if (round >= 0) rounds.push(perSecond);
      }
    }
  };
  await withChildren(1, use, CHILD);
  return { size, rows };
}

module.exports = { run, sections, judge };
