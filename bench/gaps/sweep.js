"use strict";

const { openPeer } = require("../peers.js");
const { Ids, fill } = require("../sessions.js");
const { withPauses } = require("./collector.js");
const { after, watch } = require("./watch.js");

/** How often the background sweep of ours looks, in milliseconds. */
const SWEEP_INTERVAL = 50;
/** How long the event loop is watched without a sweep, for comparison. */
const QUIET = 500;
/** How long a background sweep is watched before it is asked for, and again if it is not through. */
const WATCH = 1000;
/** How long a sweep that is through is watched further, for what it leaves to the collector. */
const AFTERMATH = 250;

/** Fills a half that lives, then one that expires at one moment: after the fill and a quiet while. */
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

/** Whether it is through is asked between the watches, as the asking itself may wait for the sweep. */
async function watchBackground(peer, live, count) {
  let longest = 0;
  do longest = Math.max(longest, await watch(peer, live, after(WATCH)));
  while ((await peer.countSwept()) < count);
  return { longest };
}

/** The longest gap in milliseconds while half of the sessions, which expire at one moment, are swept. */
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
