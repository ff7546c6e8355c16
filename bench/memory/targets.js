"use strict";

const { atMost } = require("../limits.js");
const { OURS } = require("../peers.js");
const { shapeLabel } = require("../shapes.js");
const { count } = require("../stats.js");

const LIMITS = { fluidauth: 0.35, express: 0.5 };

/** The targets of memory: the maximum ratio to the Map. */
function judge(rows) {
  const mapOf = ({ shape, size }) =>
    rows.find((row) => row.shape === shape && row.size === size && row.store === "map");
  return rows
    .filter(({ store }) => store === OURS)
    .map((row) => {
      const what = `memory (RSS) of ${shapeLabel(row.shape)}, against the Map, ${count(row.size)} sessions`;
      return atMost(what, LIMITS[row.shape], "x", row.rss / mapOf(row).rss);
    });
}

module.exports = { judge };
