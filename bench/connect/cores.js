"use strict";

const { spawnSync } = require("node:child_process");

const taskset = (...args) => spawnSync("taskset", args, { encoding: "utf8" });

/** Returns the processor cores that this process may use. Empty if that is unknown or cannot be changed. */
function usableCores() {
  const { status, stdout } = taskset("-c", "-p", process.pid);
  if (status !== 0) return [];
  return stdout
    .slice(stdout.lastIndexOf(":") + 1)
    .split(",")
    .flatMap((range) => {
      const [first, last = first] = range.split("-").map(Number);
      return Array.from({ length: last - first + 1 }, (_, at) => first + at);
    });
}

/** Pins this process to one core, with all its present and future threads. */
function stayOn(core) {
  const { status, stderr } = taskset("-a", "-c", "-p", core, process.pid);
  if (status !== 0) throw new Error(`taskset failed: ${stderr}`);
}

module.exports = { stayOn, usableCores };
