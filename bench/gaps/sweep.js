"use strict";

const { openPeer } = require("../peers.js");
const { Ids, fill } = require("../sessions.js");
const { withPauses } = require("./collector.js");
const { after, watch } = require("./watch.js");

/** The `sweepInterval` of our stores, in milliseconds. */
const SWEEP_INTERVAL = 50;
/** How long the event loop is watched without a sweep for comparison, in milliseconds. */
const QUIET = 500;
/** How long a background sweep is watched before its state is checked, in milliseconds. Repeated until it is done. */
const WATCH = 1000;
/** How long the event loop is watched after the sweep, to include later garbage collection, in milliseconds. */
const AFTERMATH = 250;

/** Fills one half that lives, and one half that expires at the same time, after the fill and a quiet period. */
async function fillToExpire(peer, ids) {
  const half = ids.length / 2;
  const start = Date.now();
  await fill(peer, ids, { to: half });
  const expiry = Date.now() + 2 * (Date.now() - start) + 2 * QUIET;
  await fill(peer, ids, { from: half, expiresOf: () => expiry });
  return expiry;
}

async function watchClean(peer, live) {
  const start = performance.now();
  let end = Number.POSITIVE_INFINITY;
  const watching = watch(peer, live, (now) => now >= end + AFTERMATH);
  await peer.clean();
  end = performance.now();
  return { longest: await watching, took: end - start };
}

/** Checks between two watches whether the sweep is done, because the check itself may wait for the sweep. */
async function watchBackground(peer, live, count) {
  let longest = 0;
  do longest = Math.max(longest, await watch(peer, live, after(WATCH)));
  while ((await peer.countSwept()) < count);
  return { longest };
}

/** Measures the longest gap in milliseconds while half of the sessions, which expire at the same time, are swept. */
async function longestGapOfSweep({ store, size, inBackground }) {
  const options = store === "native" ? { sweepInterval: inBackground ? SWEEP_INTERVAL : 0 } : undefined;
  const peer = openPeer(store, options);
  const ids = Ids.random(size);
  const expiry = await fillToExpire(peer, ids);
  const live = ids.sample(100_000, size / 2);
  global.gc();
  if (Date.now() > expiry - QUIET) throw new Error("filling the store took too long: is the machine busy?");
  const quiet = await watch(peer, live, after(QUIET));
  await watch(peer, live, after(expiry - SWEEP_INTERVAL - Date.now()));
  if (inBackground) return { quiet, ...(await withPauses(() => watchBackground(peer, live, size / 2))) };
  await new Promise((resolve) => setTimeout(resolve, expiry + 1 - Date.now()));
  return { quiet, ...(await withPauses(() => watchClean(peer, live))) };
}

module.exports = { longestGapOfSweep };
