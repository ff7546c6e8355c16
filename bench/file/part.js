"use strict";

const path = require("node:path");
const { allocatedBytes, fileSystemOf, settleDisk, withDirectory } = require("../disk.js");
const { installPeers } = require("../install.js");
const { Ids } = require("../sessions.js");
const { withChildren } = require("../spawn.js");
const { count, rotated } = require("../stats.js");
const { timeReads } = require("./reads.js");
const { sections } = require("./report.js");
const { NAMES, OURS, STORES, directoryOf, sizeOf } = require("./stores.js");
const { judge } = require("./targets.js");

const CHILD = path.join(__dirname, "child.js");
const IN_FLIGHT = [1, 16, 256, 4096];
const EXPIRED_SHARE = 1 / 10;

const TRIALS = {
  lmdb: 'require("lmdb")',
  "better-sqlite3": 'new (require("better-sqlite3"))(":memory:")',
  "session-file-store": 'require("session-file-store")',
};

/** Which stores sweep, and how; the gaps of the others are so long that one run shows them. */
const SWEEPS = [
  { store: OURS },
  { store: "lmdb", once: true },
  { store: "lmdb", atATime: 1000, once: true },
  { store: "sqlite", once: true },
  { store: "sqlite", atATime: 1000, once: true },
];

const withChild = (use) => withChildren(1, use, CHILD);

/** What all the stages have: where the stores are and how many sessions each has. */
class Run {
  constructor(plan, directory, missing, progress) {
    this.plan = plan;
    this.directory = directory;
    this.progress = (step, detail) => progress(`file, ${step}`, detail);
    this.idsFile = path.join(directory, "ids");
    this.present = NAMES.filter((name) => !(STORES[name].package in missing));
    this.stores = this.present.filter((name) => !STORES[name].isFloor);
  }

  /** What a child needs to open a store, or to make it. */
  argsOf(store) {
    const size = sizeOf(store, this.plan.fileSize);
    return { store, size, directory: this.directory, idsFile: this.idsFile };
  }

  bytesPerSession(store) {
    return allocatedBytes(directoryOf(store, this.directory)) / this.argsOf(store).size;
  }
}

/** Bytes a session, of those stores that hold any: `{ store, size, filled }[]`. */
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

/** Adds what it is once a quarter of the sessions was replaced; files of their own stay as they are. */
async function churnAll(run, rows) {
  for (const row of rows.filter(({ store }) => store !== "files")) {
    run.progress("churn", `: ${row.store}`);
    await withChild((child) => child.call("churn", run.argsOf(row.store)));
    row.churned = run.bytesPerSession(row.store);
  }
}

/** Milliseconds, each in a new process: `{ store, rounds }[]`. */
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

/** Nanoseconds a get, `{ store, rounds }[]`, and creates a second, `{ store, inFlight, rounds }[]`. */
async function timeCalls(run) {
  const { present, stores, plan } = run;
  const use = async (...children) => {
    const childOf = (store) => children[present.indexOf(store)];
    for (const store of present) {
      run.progress("opening for the calls", `: ${store}`);
      await childOf(store).call("open", run.argsOf(store));
    }
    const get = stores.map((store) => ({ store, rounds: [] }));
    await inRounds(run, "get", plan.getRounds, [get], ({ store }) => childOf(store).call("get"));
    const create = IN_FLIGHT.map((inFlight) => present.map((store) => ({ store, inFlight, rounds: [] })));
    await inRounds(run, "create", plan.createRounds, create, ({ store, inFlight }) => {
      settleDisk();
      return childOf(store).call("create", { inFlight, seconds: plan.createSeconds });
    });
    return { get, create: create.flat() };
  };
  return withChildren(present.length, use, CHILD);
}

/** Group by group, and in each another store first in each round. The rounds before the first are for the compiler. */
async function inRounds(run, title, total, groups, measure) {
  for (let round = -run.plan.warmUpRounds; round < total; round++) {
    run.progress(title, `: round ${round + 1} of ${total}`);
    for (const row of groups.flatMap((group) => rotated(group, round))) {
      const value = await measure(row);
      if (round >= 0) row.rounds.push(value);
    }
  }
}

/** Milliseconds: `{ store, work, atATime?, runs: { longest, quiet, took }[] }[]`. */
async function watchGaps(run) {
  const { fileGapRuns: gapRuns, createGapSeconds: seconds, fileSize } = run.plan;
  const creates = run.stores.map((store) => ({ store, task: "gapOfCreates", once: store !== OURS }));
  const sweeps = SWEEPS.filter(({ store }) => run.stores.includes(store));
  const rows = [...creates, ...sweeps.map((sweep) => ({ task: "gapOfClean", ...sweep }))];
  for (const row of rows) {
    row.runs = [];
    for (let i = 0; i < (row.once ? 1 : gapRuns); i++) {
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

/** Stores in files: `{ size, fileSystem, stores, missing, reads, disk, open, get, create, gaps }`. */
function run(plan, progress, missing) {
  return withDirectory(plan.directory, async (directory) => {
    const run = new Run(plan, directory, missing, progress);
    const reads = await timeReads(plan, directory, run.progress);
    const disk = await fillAll(run);
    const open = await timeOpening(run);
    const calls = await timeCalls(run);
    const gaps = await watchGaps(run);
    await churnAll(run, disk);
    const fileSystem = fileSystemOf(directory);
    const stores = run.present.map((name) => ({ store: name, ...STORES[name] }));
    return { size: plan.fileSize, fileSystem, stores, missing, reads, disk, open, ...calls, gaps };
  });
}

module.exports = { install, run, sections, judge };
