"use strict";

const { setImmediate: turn } = require("node:timers/promises");
const { openPeer } = require("../peers.js");
const { Ids, farOff, fill, userOf } = require("../sessions.js");
const { withPauses } = require("./collector.js");

/** Creates a second, and deletes a second. */
const A_SECOND = 60_000;
/** Limits the catching up after a long turn of the event loop, which would itself be a gap. */
const MOST_A_TURN = 100;
/** Milliseconds that are not measured, for the compiler and for garbage from filling. */
const WARM_UP = 1000;

/** Replaces the oldest sessions for `millis` milliseconds: `{ longest, perSecond, replaced }`. */
async function churn(peer, ids, millis, firstNumber, from) {
  const start = performance.now();
  let longest = 0;
  let replaced = 0;
  for (let last = start; last - start < millis; ) {
    const due = Math.min(Math.floor(((last - start) * A_SECOND) / 1000) - replaced, MOST_A_TURN);
    const calls = [];
    for (let end = replaced + due; replaced < end; replaced++) {
      const number = firstNumber + from + replaced;
      calls.push(peer.create(ids.at(number), userOf(number), farOff(number)));
      calls.push(peer.delete(ids.at(from + replaced)));
    }
    await Promise.all(calls);
    await turn();
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
  }
  return { longest, replaced, perSecond: (1000 * replaced) / (performance.now() - start) };
}

/** Measures the longest gap in milliseconds during churn on top of `size` sessions. */
async function longestGapOfChurn({ store, size, seconds }) {
  const peer = openPeer(store, store === "native" ? { sweepInterval: 0 } : undefined);
  const most = (A_SECOND * (WARM_UP + 1000 * seconds)) / 1000;
  const ids = Ids.random(size).concat(Ids.random(most));
  await fill(peer, ids, { to: size });
  global.gc();
  const { replaced } = await churn(peer, ids, WARM_UP, size, 0);
  return withPauses(() => churn(peer, ids, 1000 * seconds, size, replaced));
}

module.exports = { longestGapOfChurn };
