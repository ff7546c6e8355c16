"use strict";

const { fileSystemOf, withDirectory } = require("../disk.js");
const { installPeers } = require("../install.js");
const { runLoad } = require("./load/stage.js");
const { runRace } = require("./race/stage.js");
const { NAMES, STORES, TRIALS } = require("./stores.js");

/**
 * Stores of express-session: `{ sessions, connections, fileSystem, missing, load?, race }`. `load` is left out where
 * autocannon is missing.
 */
async function runConnect(plan, report) {
  const missing = installPeers(__dirname, TRIALS, report);
  const progress = (step, detail) => report(`connect, ${step}`, detail);
  return withDirectory(plan.directory, async (directory) => {
    const present = NAMES.filter((name) => !(STORES[name].package in missing));
    const run = { plan, directory, present, progress };
    const load = missing.autocannon ? undefined : await runLoad(run);
    const race = await runRace(run);
    const { sessions, connections } = plan;
    return { sessions, connections, fileSystem: fileSystemOf(directory), missing, load, race };
  });
}

module.exports = { runConnect };
