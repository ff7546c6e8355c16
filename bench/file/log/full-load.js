"use strict";

const { settleDisk } = require("../../disk.js");
const { withChild } = require("../run.js");
const { BEFORE, OURS } = require("../stores.js");

const STORES = [OURS, BEFORE, "lmdb"];

/** Measures the longest create under full load: `{ seconds, rows: { store, runs: { longest, p99, drains?, perSecond, … }[] }[] }`. */
async function watchFullLoad(run) {
  const { fullLoadRuns, fullLoadSeconds: seconds } = run.plan;
  const rows = STORES.filter((store) => run.stores.includes(store)).map((store) => ({ store, runs: [] }));
  for (let round = 0; round < fullLoadRuns; round++) {
    // The other stores have one run, which is enough to show their latency.
    for (const { store, runs } of rows.filter((row) => round === 0 || row.store === OURS)) {
      run.progress("full load", `: ${store}`);
      settleDisk();
      runs.push(await withChild((child) => child.call("fullLoad", { ...run.argsOf(store), seconds })));
    }
  }
  return { seconds, rows };
}

module.exports = { watchFullLoad };
