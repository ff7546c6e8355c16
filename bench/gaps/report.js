"use strict";

const { labelOf } = require("../peers.js");
const { count, median, plural } = require("../stats.js");
const { table, tenths, whole } = require("../table.js");
const { howOf } = require("./how.js");

/** Formats the runs of a row: the longest gap, and V8's part in it. */
function cellsOf(runs) {
  const of = (key) => runs.map((run) => run[key]);
  const longest = of("longest");
  const range = `${tenths(Math.min(...longest))}-${tenths(Math.max(...longest))}`;
  return [tenths(median(longest)), range, tenths(median(of("pause"))), whole(median(of("pauses")))];
}

const HEAD = ["longest gap, ms", "all runs", "longest GC, ms", "all GC, ms"];

function sweepsTable(rows) {
  const lines = rows.map((row) => {
    const of = (key) => row.runs.map((run) => run[key]);
    const took = row.inBackground ? "" : whole(median(of("took")));
    return [labelOf(row.store), howOf(row), ...cellsOf(row.runs), tenths(median(of("quiet"))), took];
  });
  return table(["store", "sweep", ...HEAD, "without sweep", "took, ms"], lines, 2);
}

function churnsTable(rows) {
  const lines = rows.map(({ store, size, runs }) => [
    labelOf(store),
    count(size),
    ...cellsOf(runs),
    whole(median(runs.map(({ perSecond }) => perSecond))),
  ]);
  return table(["store", "sessions", ...HEAD, "replaced a second"], lines, 1);
}

const COLD_LABELS = { memory: "MemoryStore", file: "FileStore", "encrypted file": "FileStore with a secret" };

function coldTable(rows) {
  const lines = rows.map(({ store, call, runs }) => {
    const of = (key) => runs.map((run) => run[key]);
    return [
      call,
      COLD_LABELS[store],
      ...cellsOf(runs),
      tenths(median(of("quiet"))),
      whole(median(of("took"))),
    ];
  });
  return table(["call", "store", ...HEAD, "without the call", "took, ms"], lines, 2);
}

function sections({ sweeps, churns, colds }) {
  const { size, runs } = sweeps[0];
  return [
    {
      title:
        `Longest gap of the event loop while ${count(size / 2)} of ${count(size)} sessions are swept ` +
        `(median of ${plural(runs.length, "run")} of ours, one\nof the others), and the pauses of V8's collector in the same ` +
        "run. Without a sweep it is what the machine adds:",
      body: sweepsTable(sweeps),
    },
    {
      title:
        "The same while 60k sessions a second are created and as many deleted, the oldest first, on top of what the " +
        `store\nholds (median of ${plural(churns[0].runs.length, "run")} of ours, one of the others). A store that is behind ` +
        "replaces fewer:",
      body: churnsTable(churns),
    },
    {
      title:
        "The same during calls that look at many sessions. 3000 calls at once are made in one turn of the event loop, which is\n" +
        "part of the gap:",
      body: coldTable(colds),
    },
  ];
}

module.exports = { sections };
