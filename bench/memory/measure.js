"use strict";

const { setTimeout: sleep } = require("node:timers/promises");
const { openPeer } = require("../peers.js");
const { Ids, fill } = require("../sessions.js");
const { SHAPES } = require("../shapes.js");

const CHUNK = 10_000;
/** Sessions before the measurement. They exceed V8's young generation. */
const WARM_UP = { fluidauth: 200_000, express: 40_000 };

// Keeps the sessions alive.
let peer;

/** Makes few ids at a time, because the memory of a million ids does not belong to the store. */
async function fillInChunks(peer, size, dataOf) {
  for (let made = 0; made < size; made += CHUNK) {
    await fill(peer, Ids.random(CHUNK), { firstNumber: made, dataOf });
  }
}

/** Returns the bytes held after garbage collection. */
async function settled() {
  for (let i = 0; i < 3; i++) {
    global.gc();
    await sleep(50);
  }
  const { rss, heapUsed } = process.memoryUsage();
  return { rss, heap: heapUsed };
}

/** Measures the bytes that a session adds. */
async function bytesPerSession({ shape, store, size }) {
  const { dataOf } = SHAPES[shape];
  // Make only garbage, so that the pages of V8's young generation are allocated before: they do not belong to a store.
  const keepsNothing = { create: async (...session) => session.map((value) => JSON.stringify(value)) };
  await fillInChunks(keepsNothing, WARM_UP[shape], dataOf);
  peer = openPeer(store);
  const before = await settled();
  await fillInChunks(peer, size, dataOf);
  const after = await settled();
  return { rss: (after.rss - before.rss) / size, heap: (after.heap - before.heap) / size };
}

module.exports = { bytesPerSession };
