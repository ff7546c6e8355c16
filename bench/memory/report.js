"use strict";

const { OURS, labelOf } = require("../peers.js");
const { SHAPE_NAMES, shapeLabel } = require("../shapes.js");
const { count } = require("../stats.js");
const { ratio, table, whole } = require("../table.js");

function memoryTable(rows) {
  const lines = rows.map(({ size, store, rss, heap }) => {
    const ours = rows.find((row) => row.size === size && row.store === OURS);
    const against = store === OURS ? "" : ratio(ours.rss / rss);
    return [count(size), labelOf(store), whole(rss), whole(heap), against];
  });
  return table(["sessions", "store", "RSS, B", "V8 heap, B", "ours/this"], lines, 2);
}

const sections = (rows) =>
  SHAPE_NAMES.map((shape) => ({
    title: `Memory a session of ${shapeLabel(shape)}, each of another user, in a new process:`,
    body: memoryTable(rows.filter((row) => row.shape === shape)),
  }));

module.exports = { sections };
