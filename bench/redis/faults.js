"use strict";

// Measures a RedisStore while its servers and its network fail: `node bench/redis/faults.js [words of a fault]`.

const { redisMissing } = require("../../__test__/support/redis-servers.js");
const { FAULTS } = require("../../__test__/support/redis/faults.js");
const { table, whole } = require("../table.js");

const HEAD = [
  "fault",
  "requests",
  "failed",
  "unknown",
  "lost",
  "longest, ms",
  "of",
  "recovered, ms",
  "stall, ms",
];

async function lineOf({ title, run }) {
  process.stderr.write(`${title}\n`);
  const { requests, failed, unknown, lost, longest, deadline, recovered, stall, faults } = await run();
  for (const fault of faults) console.error(`  ${fault}`);
  const figures = [requests, failed, unknown, lost, longest, deadline, recovered, stall];
  return [title, ...figures.map(whole)];
}

async function main() {
  if (redisMissing) throw new Error(redisMissing);
  const words = process.argv.slice(2).join(" ");
  const lines = [];
  for (const fault of FAULTS.filter(({ title }) => title.includes(words))) lines.push(await lineOf(fault));
  console.log(
    "requests: calls from the start of the fault until recovery. failed: calls with an error. unknown: failed writes that may\n" +
      "have happened. lost: sessions that differ from their acknowledged state. longest: the longest call, and its deadline.\n" +
      "recovered: time from the end of the fault to recovery. stall: the longest block of the event loop.\n",
  );
  console.log(table(HEAD, lines, 1));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
