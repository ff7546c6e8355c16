"use strict";

const { atLeast } = require("../limits.js");
const { medianRatio } = require("../stats.js");

/** The target of a whole app: the minimum ratio of its requests a second with FileStore to those with the Map. */
function judge({ load }) {
  if (!load) return [];
  const roundsOf = (name) =>
    load.rows.find(({ store }) => store === name).rounds.map(({ perSecond }) => perSecond);
  const value = medianRatio(roundsOf("file"), roundsOf("map"));
  return [atLeast("requests a second with FileStore, against the Map", 0.97, "x", value)];
}

module.exports = { judge };
