"use strict";

const { diskCountersOf } = require("../../device.js");

/**
 * Measures the cost of `use`, which resolves to a number of calls: `{ calls, seconds, cpu, bytes?, flushes? }`. `cpu`:
 * the CPU time of all threads of this process in microseconds. `bytes` and `flushes` come from the counters of the
 * folder's disk, if there are any. They include the writes of other processes.
 */
async function costOf(folder, use) {
  const { counters } = diskCountersOf(folder);
  const disk = counters?.read();
  const cpu = process.cpuUsage();
  const start = performance.now();
  const calls = await use();
  const seconds = (performance.now() - start) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const cost = { calls, seconds, cpu: user + system };
  if (!counters) return cost;
  const { bytes, flushes } = counters.read();
  return { ...cost, bytes: bytes - disk.bytes, flushes: flushes - disk.flushes };
}

/** Adds the costs of concurrent processes, and divides by their calls: `{ perSecond, cpu, bytes?, flushes? }`. */
function perCall(costs) {
  const sumOf = (figure) => costs.map(figure).reduce((sum, value) => sum + value, 0);
  const calls = sumOf((cost) => cost.calls);
  // Each process has counted the writes of all of them.
  const writtenOf = (figure) => sumOf((cost) => cost[figure]) / costs.length / calls;
  const each = {
    perSecond: sumOf((cost) => cost.calls / cost.seconds),
    cpu: sumOf((cost) => cost.cpu) / calls,
  };
  return costs[0].bytes === undefined
    ? each
    : { ...each, bytes: writtenOf("bytes"), flushes: writtenOf("flushes") };
}

module.exports = { costOf, perCall };
