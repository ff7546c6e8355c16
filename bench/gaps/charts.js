"use strict";

const { ranking } = require("../charts/style.js");
const { OURS, labelOf } = require("../peers.js");
const { count, median } = require("../stats.js");
const { howOf } = require("./how.js");

/** Charts of the longest gaps of the event loop: during the sweep, and during the churn with the most sessions. */
function charts({ sweeps, churns }) {
  const most = Math.max(...churns.map(({ size }) => size));
  const rowOf = (row, group, name) => ({
    name,
    group,
    value: median(row.runs.map(({ longest }) => longest)),
    isOurs: row.store === OURS,
  });
  const { size } = sweeps[0];
  const swept = `sweep of ${count(size / 2)} of ${count(size)}`;
  const churned = `60k creates and 60k deletes a second, on top of ${count(most)}`;
  const values = [
    ...sweeps.map((row) => rowOf(row, swept, `${labelOf(row.store)}, ${howOf(row)}`)),
    ...churns.filter((row) => row.size === most).map((row) => rowOf(row, churned, labelOf(row.store))),
  ];
  return [
    {
      file: "gaps.svg",
      title: "Longest gap of the event loop",
      subtitle: "milliseconds on a logarithmic scale; less is better",
      ...ranking(values, { format: (millis) => `${millis.toFixed(1)} ms`, isLog: true }),
    },
  ];
}

module.exports = { charts };
