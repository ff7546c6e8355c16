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

/** The cost of a call. A cell is empty if there is no counter. */
const costCells = (row) =>
  Object.entries(COSTS).map(([figure, [, format]]) =>
    row.rounds[0][figure] === undefined ? "" : format(median(valuesOf(row, figure))),
  );

/**
 * A table of the rounds of each store, and the ratio of ours to it. `keys`: the columns before the store's. `figure`:
 * the figure to compare, if rounds have several. `costs`: adds the columns with the cost of a call.
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
