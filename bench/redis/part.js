"use strict";

const path = require("node:path");
const { redisMissing, startServer } = require("../../__test__/support/redis-servers.js");
const { installPeers } = require("../install.js");
const { withChildren } = require("../spawn.js");
const { rotated } = require("../stats.js");
const { sections } = require("./report.js");
const { NAMES, STORES, TRIALS } = require("./stores.js");
const { judge } = require("./targets.js");

const CHILD = path.join(__dirname, "child.js");
const CALLS = ["get", "set", "touch"];
const IN_FLIGHT = [1, 64, 1024];

const install = (progress) =>
  redisMissing ? { "redis-server": redisMissing } : installPeers(__dirname, TRIALS, progress);

/**
 * Stores in Redis on this machine: `{ size, server, missing, rows: { call, inFlight, store, rounds }[] }`. All have one
 * server, which keeps nothing on disk, and take turns.
 */
async function run({ redisSize: size, redisRounds, redisSeconds: seconds }, progress, missing) {
  if (missing["redis-server"]) return { size, missing, rows: [] };
  const server = await startServer();
  try {
    const { redis_version: version } = await server.info("server");
    const present = NAMES.filter((name) => !(STORES[name].package in missing));
    const rows = await withChildren(
      present.length,
      (...children) =>
        measure({ children, present, url: server.url, size, rounds: redisRounds, seconds }, progress),
      CHILD,
    );
    return { size, server: version, missing, rows };
  } finally {
    await server.kill();
  }
}

async function measure({ children, present, url, size, rounds, seconds }, progress) {
  for (const [at, store] of present.entries()) {
    progress("redis", `: filling ${store}`);
    await children[at].call("open", { store, url, size });
  }
  const groups = CALLS.flatMap((call) => IN_FLIGHT.map((inFlight) => ({ call, inFlight })));
  const rows = groups.flatMap((group) => present.map((store) => ({ ...group, store, rounds: [] })));
  // The first is for the compiler.
  for (let round = -1; round < rounds; round++) {
    progress("redis", `: round ${round + 1} of ${rounds}`);
    for (const { call, inFlight } of groups) {
      for (const row of rotated(
        rows.filter((row) => row.call === call && row.inFlight === inFlight),
        round,
      )) {
        const figures = await children[present.indexOf(row.store)].call("round", { call, inFlight, seconds });
        if (round >= 0) row.rounds.push(figures);
      }
    }
  }
  return rows;
}

module.exports = { install, run, sections, judge };
