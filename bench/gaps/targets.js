"use strict";

const { atMost } = require("../limits.js");
const { OURS } = require("../peers.js");
const { count, median } = require("../stats.js");

/** In milliseconds, for any number of sessions. The limits are meant for a sweep in 1M and a churn on top of 3M. */
const SWEEP_LIMIT = 3;
const CHURN_LIMIT = 15;
const COLD_LIMIT = 10;
const CALLS_AT_ONCE_LIMIT = 20;

/** The targets of the event loop. */
function judge({ sweeps, churns, colds }) {
  const ours = (rows) => rows.filter(({ store }) => store === OURS);
  const longest = ({ runs }) => median(runs.map((run) => run.longest));
  const ofSweep = (row) => {
    const how = row.inBackground ? "the background sweep" : "clean()";
    const text = `longest gap, ${how} of ${count(row.size / 2)} of ${count(row.size)}`;
    return atMost(text, SWEEP_LIMIT, " ms", longest(row));
  };
  const ofChurn = (row) =>
    atMost(`longest gap, churn on top of ${count(row.size)}`, CHURN_LIMIT, " ms", longest(row));
  const ofCold = (row) => {
    const limit = row.call.endsWith("at once") ? CALLS_AT_ONCE_LIMIT : COLD_LIMIT;
    return atMost(`longest gap, ${row.call}, ${row.store}`, limit, " ms", longest(row));
  };
  return [...ours(sweeps).map(ofSweep), ...ours(churns).map(ofChurn), ...colds.map(ofCold)];
}

module.exports = { judge };
