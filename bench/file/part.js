"use strict";

const { fileSystemOf, settleDisk, withDirectory } = require("../disk.js");
const { installPeers } = require("../install.js");
const { Ids } = require("../sessions.js");
const { count, rotated } = require("../stats.js");
const { measureLog } = require("./log/stages.js");
const { perCall } = require("./measure/cost.js");
const { timeReads } = require("./reads.js");
const { sections } = require("./report.js");
const { Run, withChild } = require("./run.js");
const { BEFORE, OURS, STORES } = require("./stores.js");
const { judge } = require("./targets.js");

const IN_FLIGHT = [1, 16, 256, 4096];
const EXPIRED_SHARE = 1 / 10;
const CHURNED_SHARE = 1 / 4;

const TRIALS = {
  lmdb: 'require("lmdb")',
  "better-sqlite3": 'new (require("better-sqlite3"))(":memory:")',
  "session-file-store": 'require("session-file-store")',
};

/** The stores whose gaps during creates are measured in several runs. For the others one run is enough. */
const WATCHED = [OURS, BEFORE, "lmdb"];

/** Which stores sweep, and how. The gaps of the others are so long that one run is enough. */
const SWEEPS = [
  { store: OURS },
  { store: "lmdb", once: true },
  { store: "lmdb", atATime: 1000, once: true },
  { store: "sqlite", once: true },
  { store: "sqlite", atATime: 1000, once: true },
];

/** Measures the bytes per session of the stores that hold sessions: `{ store, size, filled }[]`. */
async function fillAll(run) {
  Ids.random(run.plan.fileSize).writeTo(run.idsFile);
  const rows = [];
  for (const store of run.present) {
    run.progress(`filling with ${count(run.plan.fileSize)} sessions`, `: ${store}`);
    await withChild((child) => child.call("fill", run.argsOf(store)));
    if (!run.stores.includes(store)) continue;
    rows.push({ store, size: run.argsOf(store).size, filled: run.bytesPerSession(store) });
  }
  settleDisk();
  return rows;
}

/** Replaces a part of the sessions, and adds the bytes afterwards. Skips `files`. */
async function churnAll(run, rows) {
  const { idsFile } = run;
  const freshFile = `${idsFile}-fresh`;
  const fresh = Ids.random(Math.ceil(CHURNED_SHARE * run.plan.fileSize));
  fresh.writeTo(freshFile);
  for (const row of rows.filter(({ store }) => store !== "files")) {
    run.progress("churn", `: ${row.store}`);
    await withChild((child) => child.call("churn", { ...run.argsOf(row.store), freshFile }));
    row.churned = run.bytesPerSession(row.store);
  }
  Ids.readFrom(idsFile).slice(fresh.length).concat(fresh).writeTo(idsFile);
}

/** Measures opening in milliseconds, each time in a new process: `{ store, rounds }[]`. */
async function timeOpening(run) {
  const id = Ids.readFrom(run.idsFile).at(0);
  const rows = run.stores.map((store) => ({ store, rounds: [] }));
  for (let round = 0; round < run.plan.openRounds; round++) {
    run.progress("opening", `: round ${round + 1} of ${run.plan.openRounds}`);
    for (const { store, rounds } of rotated(rows, round)) {
      rounds.push(await withChild((child) => child.call("openTime", { ...run.argsOf(store), id })));
    }
  }
  return rows;
}

/** Measures nanoseconds per get, `{ store, rounds }[]`, and the cost of creates, `{ store, inFlight, rounds }[]`. */
function timeCalls(run) {
  const { present, stores, plan } = run;
  return run.withOpened(present, async (childOf) => {
    const get = stores.map((store) => ({ store, rounds: [] }));
    await run.inRounds("get", plan.getRounds, [get], ({ store }) => childOf(store).call("get"));
    const create = IN_FLIGHT.map((inFlight) => present.map((store) => ({ store, inFlight, rounds: [] })));
    await run.inRounds("create", plan.createRounds, create, async ({ store, inFlight }) => {
      settleDisk();
      const cost = await childOf(store).call("create", { inFlight, seconds: plan.createSeconds });
      await childOf(store).call("undo");
      return perCall([cost]);
    });
    return { get, create: create.flat() };
  });
}

/** Milliseconds: `{ store, task, atATime?, runs: { longest, quiet, took }[] }[]`. */
async function watchGaps(run) {
  const { fileGapRuns: gapRuns, createGapSeconds: seconds, fileSize } = run.plan;
  const creates = run.stores.map((store) => ({
    store,
    task: "gapOfCreates",
    once: !WATCHED.includes(store),
  }));
  const sweeps = SWEEPS.filter(({ store }) => run.stores.includes(store));
  const rows = [...creates, ...sweeps.map((sweep) => ({ task: "gapOfClean", ...sweep }))];
  for (const row of rows) row.runs = [];
  for (let round = 0; round < gapRuns; round++) {
    for (const row of rotated(rows, round).filter(({ once }) => round === 0 || !once)) {
      run.progress("gaps", `: ${row.store}`);
      settleDisk();
      const { task, store, atATime } = row;
      const args = { ...run.argsOf(store), seconds, expired: fileSize * EXPIRED_SHARE, atATime };
      row.runs.push(await withChild((child) => child.call(task, args)));
    }
  }
  return rows;
}

const install = (progress) => installPeers(__dirname, TRIALS, progress);

/** Stores in files: `{ size, fileSystem, stores, missing, reads, disk, open, get, create, gaps, log }`. */
function run(plan, progress, missing) {
  return withDirectory(plan.directory, async (directory) => {
    const run = new Run(plan, directory, missing, progress);
    const reads = await timeReads(plan, directory, run.progress);
    const disk = await fillAll(run);
    const open = await timeOpening(run);
    const calls = await timeCalls(run);
    const gaps = await watchGaps(run);
    await churnAll(run, disk);
    const log = await measureLog(run);
    const fileSystem = fileSystemOf(directory);
    const stores = run.present.map((name) => ({ store: name, ...STORES[name] }));
    return { size: plan.fileSize, fileSystem, stores, missing, reads, disk, open, ...calls, gaps, log };
  });
}

module.exports = { install, run, sections, judge };
