"use strict";

const { atMost } = require("../limits.js");
const { OURS } = require("../peers.js");
const { count, medianRatio } = require("../stats.js");

/** The maximum ratio of our time per call to the Map's, by the number of sessions. */
const LIMITS = {
  get: { 1000: 1.3, 10000: 1.15, 100000: 0.8, 1000000: 0.6 },
  create: { 1000: 1.4, 10000: 1.3, 100000: 1.1, 1000000: 0.9 },
};
const UPDATE_LIMIT = 1.3;
const DELETE_LIMIT = 1.2;
const TOUCH_LIMIT = 0.8;
const MEMORYSTORE_LIMIT = 0.9;

/** The targets of calls: FluidAuth's sessions are compared to the Map, sessions of an app to memorystore. */
function judge(rows) {
  const against = (shape, size, op, peer) => {
    const roundsOf = (name) =>
      rows.find((row) => row.shape === shape && row.size === size && row.op === op && row.store === name)
        .rounds;
    return medianRatio(roundsOf(OURS), roundsOf(peer));
  };
  const each = (shape, text, limitOf, ratioOf) => {
    const sizes = [...new Set(rows.filter((row) => row.shape === shape).map(({ size }) => size))];
    return sizes.map((size) => atMost(`${text}, ${count(size)} sessions`, limitOf(size), "x", ratioOf(size)));
  };
  const ofMap = (op) => (size) => against("fluidauth", size, op, "map");
  return [
    ...each("fluidauth", "await get, against the Map", (size) => LIMITS.get[size], ofMap("get")),
    ...each("fluidauth", "create, against the Map", (size) => LIMITS.create[size], ofMap("create")),
    ...each("fluidauth", "update, against the Map", () => UPDATE_LIMIT, ofMap("update")),
    ...each("fluidauth", "delete, against the Map", () => DELETE_LIMIT, ofMap("delete")),
    ...each("fluidauth", "touch, against the Map's read, change, update", () => TOUCH_LIMIT, ofMap("touch")),
    ...each(
      "express",
      "await get of 500 B, against memorystore",
      () => MEMORYSTORE_LIMIT,
      (size) => against("express", size, "get", "memorystore"),
    ),
  ];
}

module.exports = { judge };
