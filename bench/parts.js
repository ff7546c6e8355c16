"use strict";

/**
 * What can be measured, in the order in which it is. `run(plan, progress, missing)` resolves to what was measured, of
 * which `sections` makes the text of the report, `judge` the targets and `charts`, where there is one, the charts.
 * `install(progress)`, where there is one, installs what it compares with, and returns what is missing and why.
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
