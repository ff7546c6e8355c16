"use strict";

// A process for one store.
const { closedLoop } = require("../closed-loop.js");
const { serve } = require("../serve.js");
const { Ids } = require("../sessions.js");
const { openStore } = require("./stores.js");
const { mainThreadCpu } = require("./thread-cpu.js");

const FILLED_AT_ONCE = 256;

let peer;
let ids;

async function open({ store, servers, size }) {
  peer = await openStore(store, servers);
  ids = Ids.random(size);
  await closedLoop(FILLED_AT_ONCE, Array(size).keys(), (number) => peer.fill(ids.at(number), number));
}

const CALLS = {
  async get(sessionId) {
    if ((await peer.get(sessionId)) === null) throw new Error("a session was not found");
  },
  set: (sessionId, number) => peer.set(sessionId, number),
  touch: (sessionId, number) => peer.touch(sessionId, number),
};

/** Yields random session numbers until the time is over. */
function* numbersFor(millis) {
  for (const end = performance.now() + millis; performance.now() < end; ) {
    yield Math.floor(Math.random() * ids.length);
  }
}

/**
 * Measures the number of calls, the calls a second, and the CPU time per call in microseconds: of the main thread, and
 * of all threads.
 */
async function round({ call, inFlight, seconds }) {
  const start = CALLS[call];
  global.gc({ type: "minor" });
  const main = mainThreadCpu();
  const all = process.cpuUsage();
  const begun = performance.now();
  // The id is a new string each time, like the id from a cookie.
  const calls = await closedLoop(inFlight, numbersFor(seconds * 1000), (number) =>
    start(ids.at(number), number),
  );
  const elapsed = performance.now() - begun;
  const { user, system } = process.cpuUsage(all);
  return {
    calls,
    perSecond: (calls / elapsed) * 1000,
    mainCpu: (mainThreadCpu() - main) / calls,
    cpu: (user + system) / calls,
  };
}

serve({ open, round });
