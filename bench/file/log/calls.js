"use strict";

const { settleDisk } = require("../../disk.js");
const { perCall } = require("../measure/cost.js");

const IN_FLIGHT = 64;
const OF_TWO = 16;

const rowsOf = (stores) => stores.map((store) => ({ store, rounds: [] }));

/** Measures durable touches of both versions: `{ inFlight, rows: { store, rounds }[] }`. */
function timeTouches(run) {
  const { pairRounds, pairSeconds: seconds } = run.plan;
  const rows = rowsOf(run.versions);
  return run.withOpened(run.versions, async (childOf) => {
    await run.inRounds("touches", pairRounds, [rows], async ({ store }) => {
      settleDisk();
      return perCall([await childOf(store).call("touch", { inFlight: IN_FLIGHT, seconds })]);
    });
    return { inFlight: IN_FLIGHT, rows };
  });
}

/** Measures creates with `"everysec"`, and those of MemoryStore: `{ inFlight, rows: { store, rounds }[] }`. */
function timeEverysec(run) {
  const { pairRounds, pairSeconds: seconds } = run.plan;
  const rows = rowsOf(["everysec", "memory"]);
  const stores = rows.map(({ store }) => store);
  return run.withOpened(stores, async (childOf) => {
    await run.inRounds("everysec", pairRounds, [rows], async ({ store }) => {
      settleDisk();
      const cost = await childOf(store).call("create", { inFlight: IN_FLIGHT, seconds });
      await childOf(store).call("undo");
      return perCall([cost]);
    });
    return { inFlight: IN_FLIGHT, rows };
  });
}

/** Measures creates of two processes that share a folder: `{ inFlight, rows: { store, rounds }[] }`. */
function timeTwoProcesses(run) {
  const { pairRounds, pairSeconds: seconds } = run.plan;
  const rows = rowsOf(run.versions);
  const use = async (childOf) => {
    await run.inRounds("two processes", pairRounds, [rows], async ({ store }) => {
      const both = [childOf(store, 0), childOf(store, 1)];
      settleDisk();
      const costs = await Promise.all(
        both.map((child) => child.call("create", { inFlight: OF_TWO, seconds })),
      );
      for (const child of both) await child.call("undo");
      return perCall(costs);
    });
    return { inFlight: OF_TWO, rows };
  };
  return run.withOpened(run.versions, use, 2);
}

module.exports = { timeEverysec, timeTouches, timeTwoProcesses };
