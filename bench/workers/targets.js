"use strict";

const { atLeast } = require("../limits.js");
const { medianRatio } = require("../stats.js");

/** The targets of worker threads: the gets of several, relative to one. */
function judge({ rows: [one, ...others] }) {
  return others.map(({ threads, rounds }) =>
    atLeast(`gets a second, ${threads} workers against one`, 1.6, "x", medianRatio(rounds, one.rounds)),
  );
}

module.exports = { judge };
