"use strict";

const { OURS } = require("../peers.js");
const { withChildren } = require("../spawn.js");
const { count } = require("../stats.js");
const { charts } = require("./charts.js");
const { COLD_CALLS } = require("./cold.js");
const { sections } = require("./report.js");
const { judge } = require("./targets.js");

/**
 * Which stores sweep, and how. express-session's store only drops an expired session when it is requested. The gaps of
 * the others are so long that one run is enough.
 */
const SWEEPS = [
  { store: OURS, inBackground: true },
  { store: OURS, inBackground: false },
  { store: "map", inBackground: false, once: true },
  { store: "memorystore", inBackground: false, once: true },
];

/** The stores for the churn. */
const CHURNS = [{ store: OURS }, { store: "map", once: true }, { store: "memorystore", once: true }];

/** Our stores for the calls that read many sessions. */
const COLD_STORES = ["memory", "file", "encrypted file"];

/** Milliseconds: `{ longest, pause, pauses, quiet?, took?, perSecond? }[]` in the `runs` of each row. */
async function run(plan, progress) {
  const { gapSize, churnSizes, churnSeconds: seconds } = plan;
  const sweeps = SWEEPS.map((sweep) => ({ size: gapSize, ...sweep, runs: [] }));
  const churns = churnSizes.flatMap((size) => CHURNS.map((churn) => ({ size, ...churn, runs: [] })));
  await runAll(sweeps, plan.gapRuns, (row, at) => {
    progress(`gaps, sweep of ${count(gapSize / 2)} of ${count(gapSize)}, run ${at}`, `: ${row.store}`);
    const { store, size, inBackground } = row;
    return withChildren(1, (child) => child.call("longestGapOfSweep", { store, size, inBackground }));
  });
  await runAll(churns, plan.churnRuns, ({ store, size }, at) => {
    progress(`gaps, churn on top of ${count(size)}, run ${at}`, `: ${store}`);
    return withChildren(1, (child) => child.call("longestGapOfChurn", { store, size, seconds }));
  });
  const colds = COLD_CALLS.flatMap((call) => COLD_STORES.map((store) => ({ store, call, runs: [] })));
  await runAll(colds, plan.gapRuns, ({ store, call }, at) => {
    progress(`gaps, ${call}, run ${at}`, `: ${store}`);
    return withChildren(1, (child) => child.call("longestGapOfCold", { store, call }));
  });
  return { sweeps, churns, colds };
}

async function runAll(rows, total, measure) {
  for (let run = 0; run < total; run++) {
    for (const row of rows) {
      if (!row.once || run === 0) row.runs.push(await measure(row, `${run + 1} of ${total}`));
    }
  }
}

module.exports = { run, sections, judge, charts };
