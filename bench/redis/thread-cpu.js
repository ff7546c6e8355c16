"use strict";

const { readFileSync } = require("node:fs");

const TICKS_OF_A_SECOND = 100;

/** Of /proc: nanoseconds. */
function fromSchedstat() {
  return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ")[0]) / 1000;
}

function fromStat() {
  const stat = readFileSync(`/proc/self/task/${process.pid}/stat`, "utf8");
  const [user, system] = stat
    .slice(stat.lastIndexOf(")") + 2)
    .split(" ")
    .slice(11, 13);
  return ((Number(user) + Number(system)) / TICKS_OF_A_SECOND) * 1e6;
}

function fromNode() {
  const { user, system } = process.threadCpuUsage();
  return user + system;
}

const works = (read) => {
  try {
    return read() > 0;
  } catch {
    return false;
  }
};

/**
 * Returns the CPU time that the main thread has used so far in microseconds, or `undefined` if the system does not
 * report it.
 */
const mainThreadCpu = [fromNode, fromSchedstat, fromStat].find(works) ?? (() => undefined);

module.exports = { mainThreadCpu };
