"use strict";

const { atLeast, atMost } = require("../limits.js");
const { count, median, medianRatio } = require("../stats.js");
const { OURS } = require("./stores.js");

/** The targets of the stores in files; those against a store that is missing are left out. */
function judge({ size, reads, get, create, open, gaps }) {
  const targets = [];
  const [file, memory] = reads.rows;
  const toMemory = medianRatio(file.rounds, memory.rounds);
  targets.push(
    atMost(`file, await get, against MemoryStore, ${count(reads.size)} sessions`, 3.5, "x", toMemory),
  );
  const against = (rows, peer, text, target, limit) => {
    const roundsOf = (name) => rows.find(({ store }) => store === name)?.rounds;
    if (!roundsOf(peer)) return;
    targets.push(target(`file, ${text}`, limit, "x", medianRatio(roundsOf(OURS), roundsOf(peer))));
  };
  against(get, "sqlite", `await get, against better-sqlite3, ${count(size)} sessions`, atMost, 0.35);
  against(get, "lmdb", `await get, against lmdb-js, ${count(size)} sessions`, atMost, 1);
  for (const inFlight of [16, 256, 4096]) {
    const rows = create.filter((row) => row.inFlight === inFlight);
    against(rows, "lmdb", `durable creates, ${inFlight} in flight, against lmdb-js`, atLeast, 1.5);
  }
  const ours = (rows) => rows.filter(({ store }) => store === OURS);
  for (const { rounds } of ours(open)) {
    targets.push(atMost("file, open and first get", 5, " ms", median(rounds)));
  }
  for (const { task, runs } of ours(gaps)) {
    const work =
      task === "gapOfCreates" ? "creates, 4096 in flight" : `clean() of ${count(size / 10)} expired`;
    targets.push(atMost(`file, longest gap, ${work}`, 5, " ms", median(runs.map(({ longest }) => longest))));
  }
  return targets;
}

module.exports = { judge };
