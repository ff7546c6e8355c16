"use strict";

/** Calls `start` with each of the items, `width` at a time: what completes starts the next. Resolves to their number. */
async function closedLoop(width, items, start) {
  const iterator = items[Symbol.iterator]();
  let completed = 0;
  const run = async () => {
    for (let next = iterator.next(); !next.done; next = iterator.next()) {
      await start(next.value);
      completed++;
    }
  };
  await Promise.all(Array.from({ length: width }, run));
  return completed;
}

module.exports = { closedLoop };
