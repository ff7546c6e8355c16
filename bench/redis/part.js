"use strict";

const path = require("node:path");
const { redisMissing, tlsMissing } = require("../../__test__/support/redis-servers.js");
const { installPeers } = require("../install.js");
const { withChildren } = require("../spawn.js");
const { rotated } = require("../stats.js");
const { TRIALS: LOADER_TRIALS } = require("../connect/stores.js");
const { measureApp } = require("./app/measure.js");
const { measureNear } = require("./near/measure.js");
const { sections } = require("./report.js");
const { SERVERS, cpuOf } = require("./servers.js");
const { NAMES, OF_EXPRESS, STORES, TRIALS } = require("./stores.js");
const { judge } = require("./targets.js");

const LOADER = path.join(__dirname, "../connect");
const CHILD = path.join(__dirname, "child.js");
const CALLS = ["get", "set", "touch"];
const IN_FLIGHT = [1, 64, 1024];

const install = (progress) =>
  redisMissing
    ? { "redis-server": redisMissing }
    : {
        ...installPeers(__dirname, TRIALS, progress),
        ...installPeers(LOADER, { autocannon: LOADER_TRIALS.autocannon }, progress),
      };

/**
 * Stores in Redis on this machine: `{ size, server, missing, near, apps, rows: { servers, call, inFlight, store, rounds
 * }[] }`. All stores use the same servers, which keep nothing on disk, and take turns. `near`: the result of
 * `measureNear`. `apps`: the results of `measureApp` for each kind of server, empty without autocannon.
 */
async function run(plan, progress, missing) {
  const measured = await runStores(plan, progress, missing);
  if (missing["redis-server"] || !plan.redisServers.includes("plain")) return measured;
  return { ...measured, near: await measureNear(plan, progress, missing) };
}

async function runStores(whole, progress, missing) {
  const { redisServers, redisSize: size, redisRounds, redisSeconds: seconds } = whole;
  if (missing["redis-server"]) return { size, missing, apps: [], rows: [] };
  const present = NAMES.filter((name) => !(STORES[name].package in missing));
  const measured = { size, missing, apps: [], rows: [] };
  for (const kind of redisServers) {
    if (kind === "tls" && tlsMissing) {
      measured.missing = { ...measured.missing, tls: tlsMissing };
      continue;
    }
    const { servers, all, stop } = await SERVERS[kind].start();
    try {
      measured.server = (await all[0].info("server")).redis_version;
      const plan = { present, servers, all, size, rounds: redisRounds, seconds };
      const rows = await withChildren(
        present.length,
        (...children) => measure({ ...plan, children }, (detail) => progress(`redis, ${kind}`, detail)),
        CHILD,
      );
      measured.rows.push(...rows.map((row) => ({ servers: kind, ...row })));
      if (missing.autocannon) continue;
      const stores = { servers, present: present.filter((name) => OF_EXPRESS.includes(name)) };
      measured.apps.push({ servers: kind, ...(await measureApp(stores, whole, progress)) });
    } finally {
      await stop();
    }
  }
  return measured;
}

async function measure({ children, present, servers, all, size, rounds, seconds }, progress) {
  for (const [at, store] of present.entries()) {
    progress(`: filling ${store}`);
    await children[at].call("open", { store, servers, size });
  }
  const groups = CALLS.flatMap((call) => IN_FLIGHT.map((inFlight) => ({ call, inFlight })));
  const rows = groups.flatMap((group) => present.map((store) => ({ ...group, store, rounds: [] })));
  // Round -1 is for the compiler.
  for (let round = -1; round < rounds; round++) {
    progress(`: round ${round + 1} of ${rounds}`);
    for (const { call, inFlight } of groups) {
      for (const row of rotated(
        rows.filter((row) => row.call === call && row.inFlight === inFlight),
        round,
      )) {
        const before = await cpuOf(all);
        const child = children[present.indexOf(row.store)];
        const { calls, ...figures } = await child.call("round", { call, inFlight, seconds });
        const serverCpu = ((await cpuOf(all)) - before) / calls;
        if (round >= 0) row.rounds.push({ ...figures, serverCpu });
      }
    }
  }
  return rows;
}

module.exports = { install, run, sections, judge };
