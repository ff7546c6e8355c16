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
    "requests: calls from the fault's beginning until all was well again. failed: those with an error, which tells of\n" +
      "those under unknown that the write may have been carried out. lost: sessions that are not as was acknowledged.\n" +
      "longest: how long a call took at most, and its deadline. recovered: after the fault's end. stall: how long the\n" +
      "event loop stood still at most.\n",
  );
  console.log(table(HEAD, lines, 1));
}

main().catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
