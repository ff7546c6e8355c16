"use strict";

const { atLeast, atMost } = require("../limits.js");
const { count, median, medianRatio } = require("../stats.js");
const { against, judge: judgeLog } = require("./log/targets.js");
const { OURS, labelOf } = require("./stores.js");

/** The minimum ratio of our creates a second to a peer's, by the number in flight. */
const CREATES = {
  raw: { 1: 0.85, 16: 0.8, 256: 0.5, 4096: 0.25 },
  sqlite: { 1: 0.9, 16: 1.5, 256: 2.5, 4096: 1.3 },
  lmdb: { 1: 2, 16: 3, 256: 2.5, 4096: 1.3 },
};

const ofOurs = (rows) => rows.filter(({ store }) => store === OURS);

function judgeGets({ size, reads, get }) {
  const [file, memory] = reads.rows;
  const toMemory = medianRatio(file.rounds, memory.rounds);
  const text = (peer, sessions) => `file, await get, against ${peer}, ${count(sessions)} sessions`;
  const targets = [atMost(text("MemoryStore", reads.size), 3.5, "x", toMemory)];
  against(targets, { rows: get, peer: "sqlite" }, text("better-sqlite3", size), atMost, 0.35);
  against(targets, { rows: get, peer: "lmdb" }, text("lmdb-js", size), atMost, 1);
  return targets;
}

function judgeCreates({ create }) {
  const targets = [];
  for (const [peer, limits] of Object.entries(CREATES)) {
    for (const [inFlight, limit] of Object.entries(limits)) {
      const rows = create.filter((row) => row.inFlight === Number(inFlight));
      const text = `file, durable creates, ${inFlight} in flight, against ${labelOf(peer)}`;
      against(targets, { rows, peer, figure: "perSecond" }, text, atLeast, limit);
    }
  }
  return targets;
}

const judgeOpening = ({ open }) =>
  ofOurs(open).map(({ rounds }) => atMost("file, open and first get", 5, " ms", median(rounds)));

function judgeGaps({ size, gaps }) {
  const targets = [];
  const rows = gaps
    .filter(({ task }) => task === "gapOfCreates")
    .map(({ store, runs }) => ({ store, rounds: runs }));
  const text = "file, longest gap, creates, 4096 in flight, against lmdb-js";
  against(targets, { rows, peer: "lmdb", figure: "longest" }, text, atMost, 1);
  for (const { runs } of ofOurs(gaps).filter(({ task }) => task === "gapOfClean")) {
    const longest = median(runs.map((run) => run.longest));
    targets.push(atMost(`file, longest gap, clean() of ${count(size / 10)} expired`, 5, " ms", longest));
  }
  return targets;
}

/** The targets of the stores in files. Missing stores have none. */
const judge = (measured) => [
  ...[judgeGets, judgeCreates, judgeOpening, judgeGaps].flatMap((of) => of(measured)),
  ...judgeLog(measured.log),
];

module.exports = { judge };
