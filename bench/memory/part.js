"use strict";

const { SHAPES, SHAPE_NAMES, shapeLabel } = require("../shapes.js");
const { withChildren } = require("../spawn.js");
const { count } = require("../stats.js");
const { charts } = require("./charts.js");
const { sections } = require("./report.js");
const { judge } = require("./targets.js");

/** Measures the bytes per session: `{ shape, size, store, rss, heap }[]`. */
async function run({ memorySizes }, progress) {
  const rows = [];
  for (const shape of SHAPE_NAMES) {
    for (const size of memorySizes[shape]) {
      for (const store of SHAPES[shape].stores) {
        progress(`memory, ${count(size)} sessions of ${shapeLabel(shape)}`, `: ${store}`);
        const args = { shape, store, size };
        const bytes = await withChildren(1, (child) => child.call("bytesPerSession", args));
        rows.push({ ...args, ...bytes });
      }
    }
  }
  return rows;
}

module.exports = { run, sections, judge, charts };
