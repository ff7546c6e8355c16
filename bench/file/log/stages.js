"use strict";

const path = require("node:path");
const { diskCountersOf } = require("../../device.js");
const { withChild } = require("../run.js");
const { OURS } = require("../stores.js");
const { timeEverysec, timeTouches, timeTwoProcesses } = require("./calls.js");
const { watchDisk } = require("./disk-cost.js");
const { watchFullLoad } = require("./full-load.js");
const { timeGets } = require("./reads.js");
const { timeSwitch } = require("./switch.js");

/**
 * Measures the effects of the redo log: `{ touches?, everysec?, two?, gets?, switches?, written?, load?, left }`.
 * `left` lists the skipped stages and the reasons: `{ text, reason }[]`.
 */
async function measureLog(run) {
  const args = { ...run.argsOf(OURS), directory: path.join(run.directory, "faults") };
  const { noLog, noEverysec } = await withChild((child) => child.call("faults", args));
  const noCounters = diskCountersOf(run.directory).reason;
  const left = [{ text: "an app with express-session", reason: "the part connect measures it" }];
  const leave = (text, reason) => {
    left.push({ text, reason });
  };
  /** Runs a stage. If it fails, the figures of the other stages remain valid. */
  const measure = async (text, fault, stage) => {
    if (fault) return leave(text, fault);
    try {
      return await stage(run);
    } catch (error) {
      process.exitCode = 1;
      return leave(text, `FAILED: ${error.message.split("\n", 1)}`);
    }
  };
  if (!run.plan.before) leave("ratios to an older version", "its folder is not given, see --before");
  if (noLog) leave("await get with sessions in the log", noLog);
  return {
    touches: await measure("durable touches", undefined, timeTouches),
    everysec: await measure('durability: "everysec"', noEverysec, timeEverysec),
    two: await measure("two processes", undefined, timeTwoProcesses),
    gets: await measure("await get", undefined, () => timeGets(run, !noLog)),
    switches: await measure("the switch to shared mode", noLog, timeSwitch),
    written: await measure("what the disk writes", noCounters, watchDisk),
    load: await measure("full load", undefined, watchFullLoad),
    left,
  };
}

module.exports = { measureLog };
