"use strict";

/**
 * The parts of the benchmark, in order. `run(plan, progress, missing)` resolves to the measurements. From these,
 * `sections` makes the text of the report, `judge` the targets, and the optional `charts` the charts. The optional
 * `install(progress)` installs the peers, and returns what is missing and why.
 */
module.exports = {
  ops: require("./ops/part.js"),
  layers: require("./layers/part.js"),
  memory: require("./memory/part.js"),
  gaps: require("./gaps/part.js"),
  workers: require("./workers/part.js"),
  file: require("./file/part.js"),
  http: require("./http/part.js"),
  connect: require("./connect/part.js"),
  redis: require("./redis/part.js"),
  scale: require("./scale/part.js"),
};
