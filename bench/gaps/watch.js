"use strict";

const { setImmediate: turn } = require("node:timers/promises");

const GETS_A_TURN = 10;

const after = (millis) => {
  const end = performance.now() + millis;
  return (now) => now >= end;
};

/** Gets some sessions in each turn of the event loop. Returns the longest turn. */
async function watch(peer, ids, isOver, getsATurn = GETS_A_TURN) {
  let longest = 0;
  let last = performance.now();
  for (let i = 0; ; ) {
    for (let end = i + getsATurn; i < end; i++) {
      if ((await peer.get(ids.at(i % ids.length))) === null) throw new Error("a live session was swept");
    }
    await turn();
    const now = performance.now();
    longest = Math.max(longest, now - last);
    last = now;
    if (isOver(now)) return longest;
  }
}

/** Returns the longest turn of the event loop, in milliseconds. */
const watchTurns = (isOver) => watch(undefined, [], isOver, 0);

module.exports = { after, watch, watchTurns };
