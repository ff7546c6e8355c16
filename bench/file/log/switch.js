"use strict";

const { settleDisk } = require("../../disk.js");
const { rotated } = require("../../stats.js");
const { Ids } = require("../../sessions.js");
const { withChild } = require("../run.js");
const { BEFORE, OURS } = require("../stores.js");

/**
 * Opens the store of a first process in a second one: `{ store, isFull, rounds: { took, longest, inLog }[] }[]`.
 * `took`: from the constructor until the first get has resolved. `longest`: the longest get of the first process in
 * that time. Both in milliseconds.
 */
async function timeSwitch(run) {
  const { switchRounds, logSize: count } = run.plan;
  const id = Ids.readFrom(run.idsFile).at(0);
  const rows = [
    { store: OURS, isFull: false, rounds: [] },
    { store: OURS, isFull: true, rounds: [] },
    { store: BEFORE, isFull: false, rounds: [] },
  ].filter(({ store }) => run.versions.includes(store));
  for (let round = 0; round < switchRounds; round++) {
    run.progress("switch to shared mode", `: round ${round + 1} of ${switchRounds}`);
    for (const { store, isFull, rounds } of rotated(rows, round)) {
      rounds.push(await timeOne(run.argsOf(store), id, isFull ? count : 0));
    }
  }
  return rows;
}

/** Starts a new process each time: a process that had to switch waits for a while before it uses a log again. */
function timeOne(args, id, count) {
  return withChild(async (first) => {
    await first.call("open", args);
    settleDisk();
    const inLog = count > 0 ? await first.call("fillLog", { count }) : await first.call("emptyLog");
    await first.call("startGets");
    const took = await withChild((second) => second.call("openTime", { ...args, id }));
    const longest = await first.call("stopGets");
    if (count > 0) await first.call("undo");
    return { took, longest, inLog: inLog ?? 0 };
  });
}

module.exports = { timeSwitch };
