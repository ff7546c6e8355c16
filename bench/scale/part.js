"use strict";

const path = require("node:path");
const { redisMissing } = require("../../__test__/support/redis-servers.js");
const { allocatedBytes, settleDisk, withDirectory } = require("../disk.js");
const { directoryOf } = require("../file/stores.js");
const { Ids } = require("../sessions.js");
const { withChildren } = require("../spawn.js");
const { count, median } = require("../stats.js");
const { CHECKED_CONTENT, calibrationOf, fit } = require("./fit.js");
const { measureRedis } = require("./redis-server.js");
const { sections } = require("./report.js");
const { judge } = require("./targets.js");

const CHILD = path.join(__dirname, "child.js");
const OPENINGS = 5;

const withChild = (use) => withChildren(1, use, CHILD);

/** The default rows: those for the costs, and those that check the model. */
function rowsOf({ scaleSize: size, scaleChecks }) {
  const stores = ["memory", "file", "redis"];
  return [
    ...stores.flatMap((store) => calibrationOf(store, size)),
    ...stores.map((store) => ({ store, size, content: CHECKED_CONTENT })),
    ...scaleChecks.flatMap((check) =>
      ["memory", "file"].map((store) => ({ store, size: check, content: 0 })),
    ),
  ];
}

/** Measures a FileStore in a temporary folder. */
function measureFile(args, parent) {
  return withDirectory(parent, async (directory) => {
    const all = { ...args, directory, idsFile: path.join(directory, "ids") };
    const fillSeconds = await withChild((child) => child.call("fillFile", all));
    settleDisk();
    const bytes = allocatedBytes(directoryOf("native", directory)) / args.size;
    const opening = { store: "native", directory, id: Ids.readFrom(all.idsFile).at(0) };
    const openings = [];
    for (let i = 0; i < OPENINGS; i++) {
      openings.push(await withChild((child) => child.call("openTime", opening)));
    }
    const figures = await withChild((child) => child.call("measureFile", all));
    return { bytes, fillSeconds, open: median(openings), ...figures };
  });
}

const MEASURE = {
  memory: (args) => withChild((child) => child.call("measureMemory", args)),
  file: measureFile,
  redis: (args) => withChild((child) => measureRedis(child, args)),
};

/** Measures the costs of the stores by size: `{ rows, costs, missing }`. */
async function run(plan, progress) {
  const missing = redisMissing ? { "redis-server": redisMissing } : {};
  const asked = plan.scaleRows ?? rowsOf(plan);
  const rows = [];
  for (const args of asked.filter(({ store }) => store !== "redis" || !redisMissing)) {
    const { store, size, content } = args;
    progress(`scale, ${store}, ${count(size)} sessions, ${content} B of app data`);
    rows.push({
      ...args,
      ...(await MEASURE[store]({ ...args, seconds: plan.scaleSeconds }, plan.directory)),
    });
  }
  return { rows, costs: fit(rows, plan.scaleSize), missing };
}

module.exports = { run, sections, judge };
