"use strict";

const { count, median, medianRatio, plural, summary } = require("../stats.js");
const { ratio, table, tenths, whole } = require("../table.js");
const { sections: logSections } = require("./log/report.js");
const { roundsTable } = require("./rounds-table.js");
const { OURS, STORES, labelOf } = require("./stores.js");

const storesTable = (disk) => {
  const lines = disk.map(({ store, size }) => [
    labelOf(store),
    count(size),
    STORES[store].index,
    STORES[store].sync,
  ]);
  const floors = Object.values(STORES).filter(({ isFloor }) => isFloor);
  lines.push(...floors.map(({ label, index, sync }) => [label, "", index, sync]));
  return table(["store", "sessions", "index", "a create has resolved after"], lines, 4);
};

function diskTable(rows) {
  const ours = rows.find(({ store }) => store === OURS);
  const cells = (row, key) => {
    if (row[key] === undefined) return ["", ""];
    return [whole(row[key]), !ours || row === ours ? "" : ratio(ours[key] / row[key])];
  };
  const lines = rows.map((row) => [
    labelOf(row.store),
    count(row.size),
    ...cells(row, "filled"),
    ...cells(row, "churned"),
  ]);
  return table(["store", "sessions", "filled, B", "ours/this", "churned, B", "ours/this"], lines, 1);
}

function howOf({ store, task, atATime }) {
  if (task === "gapOfCreates") return "4096 creates in flight";
  const how = { native: "clean()", lmdb: "sweep, a loop", sqlite: "sweep, a DELETE" }[store];
  return atATime ? `${how}, ${atATime} a turn` : how;
}

function gapsTable(rows) {
  const lines = rows.map((row) => {
    const of = (key) => row.runs.map((run) => run[key]);
    const longest = of("longest");
    const range = `${tenths(Math.min(...longest))}-${tenths(Math.max(...longest))}`;
    const took = row.task === "gapOfCreates" ? "" : whole(median(of("took")));
    return [
      labelOf(row.store),
      howOf(row),
      tenths(median(longest)),
      range,
      tenths(median(of("quiet"))),
      took,
    ];
  });
  return table(["store", "during", "longest gap, ms", "all runs", "otherwise", "took, ms"], lines, 2);
}

/** Compares FileStore to MemoryStore, and to an idle FileStore. */
function readsTable({ inFlight, rows: [file, memory], during }) {
  const line = (what, values, against) => {
    const { median: middle, low, high } = summary(values);
    return [what, whole(middle), `${whole(low)}-${whole(high)}`, against];
  };
  const of = (key) => during.map((round) => round[key]);
  const lines = [
    line("MemoryStore", memory.rounds, ""),
    line("FileStore", file.rounds, `${ratio(medianRatio(file.rounds, memory.rounds))} MemoryStore`),
    line("FileStore, in turns", of("quiet"), ""),
    line(
      `FileStore, in turns, ${inFlight} creates in flight`,
      of("busy"),
      `${ratio(medianRatio(of("busy"), of("quiet")))} without`,
    ),
  ];
  return table(["get", "ns", "quartiles", "against"], lines, 1);
}

/** The sections of the report on stores in files: `{ title, body }[]`. */
function sections({ size, fileSystem, missing, reads, disk, open, get, create, gaps, log }) {
  const all = [];
  const add = (title, body) => all.push({ title, body });
  const runsOfOurs = Math.max(...gaps.map(({ runs }) => runs.length));
  const isInMemory = fileSystem === "tmpfs";
  add(
    `Stores in files, ${count(size)} sessions, on ${fileSystem}` +
      `${isInMemory ? ": in memory, so that flushing costs nothing there; use --dir" : ""}. What each does:`,
    storesTable(disk),
  );
  const reasons = Object.entries(missing).map(([name, reason]) => `${name}: ${reason}`);
  if (reasons.length > 0) add("Skipped, because they could not be installed:", reasons.join("\n"));
  add(
    `Get of a random session, in ns: median and quartiles of ${plural(get[0].rounds.length, "round")}, a process for each store. ` +
      "Each includes\nmaking a new id string. Only native-store looks whether the session has expired:",
    roundsTable(get, ["store", "ns"]),
  );
  add(
    `Durable creates a second, by the number in flight (each completion starts the next), of ${plural(create[0].rounds.length, "round")}.\n` +
      "More is better. Then the cost of a create: CPU time of all threads, and the writes and flushes of the disk, including\n" +
      "those of other processes. Only native-store and better-sqlite3 refuse an existing id:",
    roundsTable(create, ["in flight", "store", "creates/s"], {
      keys: ["inFlight"],
      figure: "perSecond",
      costs: true,
    }),
  );
  add(
    `Get from our own stores, ${count(reads.size)} sessions, in ns: median and quartiles of ${plural(reads.rows[0].rounds.length, "round")}. ` +
      `While creates are in\nflight, of ${plural(reads.during.length, "round")}, with a turn of the event loop, which is not counted, after ` +
      "every few gets:",
    readsTable(reads),
  );
  add(
    "Bytes per session on the disk (allocated blocks), and after replacing a quarter of the sessions:",
    diskTable(disk),
  );
  add(
    `Opening a store that is in the page cache, until the first get has resolved, in ms: ${open[0].rounds.length} new processes.`,
    roundsTable(open, ["store", "ms"], { format: (millis) => millis.toFixed(2) }),
  );
  add(
    `Longest gap of the event loop, at creates and while ${count(size / 10)} expired sessions are swept from ` +
      `${count(size)}\n(median of ${runsOfOurs} of ours, and of lmdb-js at creates; one of the others). Where thousands ` +
      "of creates complete\nat once, as many start at once:",
    gapsTable(gaps),
  );
  return [...all, ...logSections(log)];
}

module.exports = { sections };
