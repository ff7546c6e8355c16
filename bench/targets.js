"use strict";

const { judgeConnect } = require("./connect/targets.js");
const { judgeFile } = require("./file/targets.js");
const { atMost } = require("./limits.js");
const { OURS } = require("./peers.js");
const { count, median, medianRatio } = require("./stats.js");

/** The targets of which something was measured: `{ text, sign, limit, unit, value, isMet }[]`. */
function judge({ ops = [], memory = [], gaps = [], file, connect }) {
  const sizesOf = (rows) => [...new Set(rows.map(({ size }) => size))].filter((size) => size >= 100_000);
  const get = (size, store) =>
    ops.find((row) => row.size === size && row.op === "get" && row.store === store).rounds;
  const timeTo = (peer, size) => medianRatio(get(size, OURS), get(size, peer));
  const rss = (size, store) => memory.find((row) => row.size === size && row.store === store).rss;

  const targets = [];
  const add = (...target) => targets.push(atMost(...target));
  for (const size of sizesOf(ops)) {
    const limit = size < 1_000_000 ? 1 : 0.75;
    add(`await get, against the Map, ${count(size)} sessions`, limit, "x", timeTo("map", size));
    add(`await get, against memorystore, ${count(size)} sessions`, 0.5, "x", timeTo("memorystore", size));
  }
  for (const size of sizesOf(memory)) {
    add(
      `memory (RSS), against the Map, ${count(size)} sessions`,
      0.7,
      "x",
      rss(size, OURS) / rss(size, "map"),
    );
  }
  for (const { size, inBackground, runs } of gaps.filter(({ store }) => store === OURS)) {
    const how = inBackground ? "the background sweep" : "clean()";
    const longest = median(runs.map((run) => run.longest));
    add(`longest gap, ${how} of ${count(size / 2)} of ${count(size)}`, 5, " ms", longest);
  }
  if (file) targets.push(...judgeFile(file));
  if (connect) targets.push(...judgeConnect(connect));
  return targets;
}

module.exports = { judge };
