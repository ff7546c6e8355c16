"use strict";

/** The commands by name, in the order of the help. */
const commands = {
  stats: require("./stats.js"),
  list: require("./list.js"),
  revoke: require("./revoke.js"),
  verify: require("./verify.js"),
  backup: require("./backup.js"),
  export: require("./export.js"),
  import: require("./import.js"),
  "discard-log": require("./discard-log.js"),
};

module.exports = { commands };
