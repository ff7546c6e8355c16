"use strict";

const { setTimeout: sleep } = require("node:timers/promises");
const { openPeer } = require("../peers.js");
const { Ids, fill } = require("../sessions.js");

const CHUNK = 10_000;
const WARM_UP = 200_000;

// The sessions live as long as this.
let peer;

/** Ids are made a few at a time: what a million take is not the store's. */
async function fillInChunks(peer, size) {
  for (let made = 0; made < size; made += CHUNK) {
    await fill(peer, Ids.random(CHUNK), { firstNumber: made });
  }
}

/** Bytes held once the collector has given back all that it gives. */
async function settled() {
  for (let i = 0; i < 3; i++) {
    global.gc();
    await sleep(100);
  }
  const { rss, heapUsed } = process.memoryUsage();
  return { rss, heap: heapUsed };
}

/** The bytes that a session adds. */
async function bytesPerSession({ store, size }) {
  // Young garbage alone, so that the pages of V8's young generation are there before: they are no store's.
  const keepsNothing = { create: async (...session) => session.map(String) };
  await fillInChunks(keepsNothing, WARM_UP);
  peer = openPeer(store);
  const before = await settled();
  await fillInChunks(peer, size);
  const after = await settled();
  return { rss: (after.rss - before.rss) / size, heap: (after.heap - before.heap) / size };
}

module.exports = { bytesPerSession };
