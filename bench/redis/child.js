"use strict";

// A process for one store.
const { closedLoop } = require("../closed-loop.js");
const { serve } = require("../serve.js");
const { Ids, farOff } = require("../sessions.js");
const { openStore } = require("./stores.js");
const { mainThreadCpu } = require("./thread-cpu.js");

const FILLED_AT_ONCE = 256;

let peer;
let ids;
let clock = 0;

async function open({ store, url, size }) {
  peer = await openStore(store, url);
  ids = Ids.random(size);
  await closedLoop(FILLED_AT_ONCE, Array(size).keys(), (number) => peer.fill(ids.at(number), number));
}

const CALLS = {
  async get(sessionId) {
    if ((await peer.get(sessionId)) === null) throw new Error("a session was not found");
  },
  set: (sessionId) => peer.set(sessionId, clock++),
  touch: (sessionId) => peer.touch(sessionId, farOff(clock++)),
};

/** Random ids of what is there, each a new string, until the time is over. */
function* idsFor(millis) {
  for (const end = performance.now() + millis; performance.now() < end; ) {
    yield ids.at(Math.floor(Math.random() * ids.length));
  }
}

/** Calls a second, and microseconds of the processor for each: of the main thread, and of all. */
async function round({ call, inFlight, seconds }) {
  global.gc({ type: "minor" });
  const main = mainThreadCpu();
  const all = process.cpuUsage();
  const start = performance.now();
  const calls = await closedLoop(inFlight, idsFor(seconds * 1000), CALLS[call]);
  const elapsed = performance.now() - start;
  const { user, system } = process.cpuUsage(all);
  return {
    perSecond: (calls / elapsed) * 1000,
    mainCpu: (mainThreadCpu() - main) / calls,
    cpu: (user + system) / calls,
  };
}

serve({ open, round });
