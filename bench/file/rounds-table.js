"use strict";

const { median, medianRatio, summary } = require("../stats.js");
const { ratio, table, tenths, whole } = require("../table.js");
const { OURS, labelOf } = require("./stores.js");

const COSTS = {
  cpu: ["CPU, us", tenths],
  bytes: ["written, B", whole],
  flushes: ["flushes", (number) => number.toFixed(2)],
};

const valuesOf = ({ rounds }, figure) => (figure ? rounds.map((round) => round[figure]) : rounds);

/** What a call costs. A cell is empty if nothing has counted it. */
const costCells = (row) =>
  Object.entries(COSTS).map(([figure, [, format]]) =>
    row.rounds[0][figure] === undefined ? "" : format(median(valuesOf(row, figure))),
  );

/**
 * The rounds of each store, by `format`, and ours against it. `keys` are columns before the store's. Where the rounds
 * have several figures, `figure` is the one to compare. `costs` adds the columns of what a call costs.
 */
function roundsTable(rows, head, { keys = [], format = whole, figure, costs = false, ours = OURS } = {}) {
  const lines = rows.map((row) => {
    const { median: middle, low, high } = summary(valuesOf(row, figure));
    const of = rows.find((other) => other.store === ours && keys.every((key) => other[key] === row[key]));
    const against = !of || row === of ? "" : ratio(medianRatio(valuesOf(of, figure), valuesOf(row, figure)));
    const cells = keys.map((key) => String(row[key]));
    return [
      ...cells,
      labelOf(row.store),
      format(middle),
      `${format(low)}-${format(high)}`,
      against,
      ...(costs ? costCells(row) : []),
    ];
  });
  const heads = costs ? Object.values(COSTS).map(([text]) => text) : [];
  return table([...head, "quartiles", "ours/this", ...heads], lines, keys.length + 1);
}

module.exports = { roundsTable };
