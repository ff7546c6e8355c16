"use strict";

// A process that reads sessions from memory, from a near cache and from the server, and that observes logouts of
// another process.
const { fork } = require("node:child_process");
const { once } = require("node:events");
const path = require("node:path");
const { MemoryStore, RedisStore } = require("../../..");
const { closedLoop } = require("../../closed-loop.js");
const { serve } = require("../../serve.js");
const { Ids, farOff, userOf } = require("../../sessions.js");
const { median } = require("../../stats.js");
const { nativeSession } = require("../sessions.js");

const OTHER = path.join(__dirname, "other.js");
const AT_ONCE = 256;
// Calls between two readings of the clock.
const STRIDE = 64;

const PREFIX = "near:";

/**
 * FluidAuth's shape, which crosses to JavaScript as plain strings, and a JSON session, whose parsing dominates each
 * `get`.
 */
const SHAPES = {
  fluidauth: (sessionId, number) => ({
    sessionId,
    expires: new Date(farOff(number)).toISOString(),
    userId: userOf(number),
  }),
  json: nativeSession,
};

let stores;
const ids = {};

async function open({ url, size }) {
  const place = { url, prefix: PREFIX, sweepInterval: 0 };
  stores = {
    memory: new MemoryStore(),
    cached: new RedisStore({ ...place, cache: {} }),
    uncached: new RedisStore(place),
  };
  for (const [shape, make] of Object.entries(SHAPES)) {
    ids[shape] = Ids.random(size);
    const fill = async (number) => {
      const session = make(ids[shape].at(number), number);
      await stores.memory.create(session);
      await stores.uncached.create(session);
    };
    await closedLoop(AT_ONCE, Array(size).keys(), fill);
    for (const id of ids[shape]) await stores.cached.get(id);
  }
}

/** Measures the nanoseconds of sequential, awaited `get` calls. */
async function round({ shape, store: name, seconds }) {
  const [store, own] = [stores[name], ids[shape]];
  global.gc({ type: "minor" });
  const begun = performance.now();
  const end = begun + 1000 * seconds;
  let calls = 0;
  while (performance.now() < end) {
    for (let at = 0; at < STRIDE; at++) {
      const found = await store.get(own.at(Math.floor(Math.random() * own.length)));
      if (found === null) throw new Error("a session was not found");
    }
    calls += STRIDE;
    // Let invalidation messages and timers run.
    await new Promise(setImmediate);
  }
  return ((performance.now() - begun) / calls) * 1e6;
}

/**
 * Measures logouts by another process, while this one continuously reads the sessions: for how many milliseconds after
 * the acknowledgement each session stayed visible, negative if it did not, and how long a round trip takes.
 */
async function logouts({ url, rounds }) {
  const other = fork(OTHER);
  const now = () => Number(process.hrtime.bigint()) / 1e6;
  try {
    other.send({ url, prefix: PREFIX });
    await once(other, "message");
    const [seenFor, trips] = [[], []];
    let hits = 0;
    for (let at = 0; at < rounds; at++) {
      const [id] = Ids.random(1);
      await stores.uncached.create(nativeSession(id, at));
      const begun = now();
      await stores.cached.get(id);
      trips.push(now() - begun);
      const acknowledged = once(other, "message");
      other.send(id);
      let last = begun;
      for (;;) {
        const before = now();
        if ((await stores.cached.get(id)) === null) break;
        last = before;
        hits++;
        await new Promise(setImmediate);
      }
      const [endedAt] = await acknowledged;
      seenFor.push(last - endedAt);
    }
    return { seenFor, trip: median(trips), hits };
  } finally {
    other.kill();
  }
}

serve({ open, round, logouts });
