"use strict";

// Measures the near cache: the time of a hit, the delay of logouts in other processes, and the gain for an app.
const path = require("node:path");
const { loadRoute, withLoad } = require("../../connect/load/rounds.js");
const { withChildren } = require("../../spawn.js");
const { rotated } = require("../../stats.js");
const { SERVERS } = require("../servers.js");

const CHILD = path.join(__dirname, "child.js");
const APP = path.join(__dirname, "server.js");
const STORES = ["cached", "memory", "uncached"];
const SHAPES = ["fluidauth", "json"];

/** `{ hits: { shape, store, rounds }[], logouts, load? }`. `load` is missing without autocannon. */
async function measureNear(plan, progress, missing) {
  const { servers, stop } = await SERVERS.plain.start();
  const [url] = servers.urls;
  try {
    const { hits, logouts } = await withChildren(1, (child) => inProcess(child, url, plan, progress), CHILD);
    const load = missing.autocannon ? undefined : await inApp(url, plan, progress);
    return { hits, logouts, load };
  } finally {
    await stop();
  }
}

async function inProcess(child, url, plan, progress) {
  const { redisSize: size, redisRounds, redisSeconds: seconds, redisLogouts: rounds } = plan;
  await child.call("open", { url, size });
  const hits = SHAPES.flatMap((shape) => STORES.map((store) => ({ shape, store, rounds: [] })));
  // Round -1 is for the compiler.
  for (let round = -1; round < redisRounds; round++) {
    progress("redis, near cache", `: round ${round + 1} of ${redisRounds}`);
    for (const row of rotated(hits, round)) {
      const nanos = await child.call("round", { shape: row.shape, store: row.store, seconds });
      if (round >= 0) row.rounds.push(nanos);
    }
  }
  progress("redis, near cache", `: ${rounds} logouts`);
  return { hits, logouts: await child.call("logouts", { url, rounds }) };
}

function inApp(url, plan, report) {
  const progress = (step, detail) => report(`redis, near cache, ${step}`, detail);
  const run = { plan, placeOf: () => ({ url }), present: STORES, progress };
  return withLoad(run, APP, async (loading) => ({
    rows: await loadRoute(loading, "/read", { rounds: plan.redisRounds }),
  }));
}

module.exports = { STORES, measureNear };
