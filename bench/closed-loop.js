"use strict";

/**
 * Calls `start` with each item, `width` concurrently: each completion starts the next call. Resolves to the number of
 * items.
 */
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
