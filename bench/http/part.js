"use strict";

const path = require("node:path");
const { withDirectory } = require("../disk.js");
const { installPeers } = require("../install.js");
const { loadRoute, withLoad } = require("../connect/load/rounds.js");
const { TRIALS } = require("../connect/stores.js");
const { charts } = require("./charts.js");
const { sections } = require("./report.js");
const { NAMES } = require("./stores.js");
const { judge } = require("./targets.js");

const SERVER = path.join(__dirname, "server.js");
const LOADER = path.join(__dirname, "../connect");

const install = (progress) => installPeers(LOADER, { autocannon: TRIALS.autocannon }, progress);

/** Measures requests to an app with a session layer like FluidAuth's: `{ sessions, connections, missing, load? }`. */
function run(plan, report, missing) {
  const progress = (step, detail) => report(`http, ${step}`, detail);
  const { sessions, connections, httpRounds: rounds } = plan;
  if (missing.autocannon) return { sessions, connections, missing };
  return withDirectory(plan.directory, async (directory) => {
    const all = { plan, directory, present: NAMES, progress };
    const load = await withLoad(all, SERVER, async (loading) => ({
      rows: await loadRoute(loading, "/read", { rounds }),
    }));
    return { sessions, connections, missing, load };
  });
}

module.exports = { install, run, sections, judge, charts };
