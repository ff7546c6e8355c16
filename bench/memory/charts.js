"use strict";

const { ranking } = require("../charts/style.js");
const { labelOf } = require("../peers.js");
const { shapeLabel } = require("../shapes.js");
const { count } = require("../stats.js");

/** A chart of the bytes per session for the largest store, by shape. */
function charts(rows) {
  const largest = (shape) => Math.max(...rows.filter((row) => row.shape === shape).map(({ size }) => size));
  const values = rows
    .filter(({ shape, size }) => size === largest(shape))
    .map(({ shape, size, store, rss }) => ({
      name: labelOf(store),
      group: `${shapeLabel(shape)}, ${count(size)} sessions`,
      value: Math.round(rss),
      isOurs: labelOf(store).startsWith(labelOf("native")),
    }));
  return [
    {
      file: "memory.svg",
      title: "Memory a session",
      subtitle: "growth of RSS; less is better",
      ...ranking(values, { format: (bytes) => `${bytes} B` }),
    },
  ];
}

module.exports = { charts };
