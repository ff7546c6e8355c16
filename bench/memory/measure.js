"use strict";

const { setTimeout: sleep } = require("node:timers/promises");
const { openPeer } = require("../peers.js");
const { Ids, fill } = require("../sessions.js");
const { SHAPES } = require("../shapes.js");

const CHUNK = 10_000;
/** Sessions that come to more than V8's young generation. */
const WARM_UP = { fluidauth: 200_000, express: 40_000 };

// The sessions live as long as this.
let peer;

/** Ids are made a few at a time: what a million take is not the store's. */
async function fillInChunks(peer, size, dataOf) {
  for (let made = 0; made < size; made += CHUNK) {
    await fill(peer, Ids.random(CHUNK), { firstNumber: made, dataOf });
  }
}

/** Bytes held once the collector has given back all that it gives. */
async function settled() {
  for (let i = 0; i < 3; i++) {
    global.gc();
    await sleep(50);
  }
  const { rss, heapUsed } = process.memoryUsage();
  return { rss, heap: heapUsed };
}

/** The bytes that a session adds. */
async function bytesPerSession({ shape, store, size }) {
  const { dataOf } = SHAPES[shape];
  // Young garbage alone, so that the pages of V8's young generation are there before: they are no store's.
  const keepsNothing = { create: async (...session) => session.map((value) => JSON.stringify(value)) };
  await fillInChunks(keepsNothing, WARM_UP[shape], dataOf);
  peer = openPeer(store);
  const before = await settled();
  await fillInChunks(peer, size, dataOf);
  const after = await settled();
  return { rss: (after.rss - before.rss) / size, heap: (after.heap - before.heap) / size };
}

module.exports = { bytesPerSession };
