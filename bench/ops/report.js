"use strict";

const { OURS, labelOf } = require("../peers.js");
const { SHAPE_NAMES, shapeLabel } = require("../shapes.js");
const { count, medianRatio, plural, summary } = require("../stats.js");
const { ratio, table, whole } = require("../table.js");

function opsTable(rows) {
  const lines = rows.map(({ size, op, store, rounds }) => {
    const { median: middle, low, high } = summary(rounds);
    const ours = rows.find((row) => row.size === size && row.op === op && row.store === OURS).rounds;
    const against = store === OURS ? "" : ratio(medianRatio(ours, rounds));
    return [count(size), op, labelOf(store), whole(middle), `${whole(low)}-${whole(high)}`, against];
  });
  return table(["sessions", "call", "store", "ns", "quartiles", "ours/this"], lines, 3);
}

function sections(rows) {
  const intro =
    `median and quartiles of ${plural(rows[0].rounds.length, "round")}, a process for each store. ` +
    "Each call includes making a new\nid string, whose cost is the first row; create, update and touch include the " +
    "text or Date of the expiry. The Map has no\ntouch: its row is the reading, changing and updating that FluidAuth " +
    "does. express-session and memorystore answer by\nsetImmediate: awaited one by one, each call costs them a turn of " +
    "the event loop.";
  return SHAPE_NAMES.map((shape) => ({
    title: `Calls, sessions of ${shapeLabel(shape)}, in ns: ${intro}`,
    body: opsTable(rows.filter((row) => row.shape === shape)),
  }));
}

module.exports = { sections };
