"use strict";

const { runConnect } = require("./connect/part.js");
const { runFile } = require("./file/part.js");
const { OPS } = require("./measure/ops.js");
const { NAMES, OURS } = require("./peers.js");
const { withChildren } = require("./spawn.js");
const { count, rotated } = require("./stats.js");

/**
 * Which stores sweep, and how; express-session's only drops an expired session when it is asked for. The gaps of
 * the others are so long that one run shows them.
 */
const SWEEPS = [
  { store: OURS, inBackground: true },
  { store: OURS, inBackground: false },
  { store: "map", inBackground: false, once: true },
  { store: "memorystore", inBackground: false, once: true },
];

/**
 * Nanoseconds a call: `{ size, op, store, rounds }[]`. A process for each store, filled once; they take turns, so
 * that what disturbs the machine disturbs all of them, and whoever is first in a round is last in another.
 */
async function runOps({ sizes, rounds }, progress) {
  const rows = [];
  for (const size of sizes) {
    await withChildren(NAMES.length, async (...children) => {
      for (const [at, store] of NAMES.entries()) {
        progress(`calls, ${count(size)} sessions`, `: filling ${store}`);
        await children[at].call("open", { store, size });
      }
      const ofSize = OPS.flatMap((op) => NAMES.map((store) => ({ size, op, store, rounds: [] })));
      // The first is for the compiler.
      for (let round = -1; round < rounds; round++) {
        progress(`calls, ${count(size)} sessions`, `: round ${round + 1} of ${rounds}`);
        for (const row of inTurn(ofSize, round)) {
          const each = await children[NAMES.indexOf(row.store)].call("round", { op: row.op });
          if (round >= 0) row.rounds.push(each);
        }
      }
      rows.push(...ofSize);
    });
  }
  return rows;
}

/** Call by call, and in each another store first in each round. */
function inTurn(rows, round) {
  const stores = rotated(NAMES, round);
  return OPS.flatMap((op) => stores.map((store) => rows.find((row) => row.op === op && row.store === store)));
}

/** Bytes a session: `{ size, store, rss, heap }[]`. */
async function runMemory({ memorySizes }, progress) {
  const rows = [];
  for (const size of memorySizes) {
    for (const store of NAMES) {
      progress(`memory, ${count(size)} sessions`, `: ${store}`);
      const bytes = await withChildren(1, (child) => child.call("bytesPerSession", { store, size }));
      rows.push({ size, store, ...bytes });
    }
  }
  return rows;
}

/** Milliseconds: `{ size, store, inBackground, runs: { longest, quiet, took? }[] }[]`. */
async function runGaps({ gapSize, gapRuns }, progress) {
  const rows = SWEEPS.map((sweep) => ({ size: gapSize, ...sweep, runs: [] }));
  for (let run = 0; run < gapRuns; run++) {
    for (const { size, store, inBackground, once, runs } of rows) {
      if (once && run > 0) continue;
      progress(`gaps, run ${run + 1} of ${gapRuns}`, `: ${store}`);
      const args = { store, size, inBackground };
      runs.push(await withChildren(1, (child) => child.call("longestGap", args)));
    }
  }
  return rows;
}

module.exports = { ops: runOps, memory: runMemory, gaps: runGaps, file: runFile, connect: runConnect };
