"use strict";

const { spawnSync } = require("node:child_process");

const taskset = (...args) => spawnSync("taskset", args, { encoding: "utf8" });

/** The processor cores that this process may use; none where that cannot be told, or cannot be changed. */
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

/** Keeps this process, with all the threads that it has and that it will have, on one core. */
function stayOn(core) {
  const { status, stderr } = taskset("-a", "-c", "-p", core, process.pid);
  if (status !== 0) throw new Error(`taskset failed: ${stderr}`);
}

module.exports = { stayOn, usableCores };
