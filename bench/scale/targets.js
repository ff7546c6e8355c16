"use strict";

const { atMost } = require("../limits.js");
const { count } = require("../stats.js");
const { COSTS } = require("./costs.js");
const { percentOff } = require("./check.js");

/** Bytes depend on the format and the allocator. Times depend on the machine, so they have no target. */
const MAX_PERCENT_OFF = 10;
const SMALLEST = 1_000_000;

/** The targets of the model: the maximum error of the bytes per session, in stores that are not small. */
function judge({ rows }) {
  return rows
    .filter(({ size }) => size >= SMALLEST)
    .map((row) => {
      const what = `scale, bytes a session, ${row.store}, ${count(row.size)} sessions, ${row.content} B of app data`;
      return atMost(what, MAX_PERCENT_OFF, "% off", Math.abs(percentOff(COSTS, row, "bytes")));
    });
}

module.exports = { judge };
