"use strict";

const { fileSystemOf, withDirectory } = require("../disk.js");
const { installPeers } = require("../install.js");
const { charts } = require("./charts.js");
const { runLoad } = require("./load/stage.js");
const { runRace } = require("./race/stage.js");
const { sections } = require("./report.js");
const { NAMES, STORES, TRIALS } = require("./stores.js");
const { judge } = require("./targets.js");

const install = (progress) => installPeers(__dirname, TRIALS, progress);

/**
 * Stores of express-session: `{ sessions, connections, fileSystem, missing, load?, race }`. `load` is missing without
 * autocannon.
 */
function run(plan, report, missing) {
  const progress = (step, detail) => report(`connect, ${step}`, detail);
  return withDirectory(plan.directory, async (directory) => {
    const present = NAMES.filter((name) => !(STORES[name].package in missing));
    const all = { plan, directory, present, progress };
    const load = missing.autocannon ? undefined : await runLoad(all);
    const race = await runRace(all);
    const { sessions, connections } = plan;
    return { sessions, connections, fileSystem: fileSystemOf(directory), missing, load, race };
  });
}

module.exports = { install, run, sections, judge, charts };
