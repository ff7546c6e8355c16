"use strict";

const { loadStore } = require("../stores.js");

/** Measures the milliseconds from the call of the constructor to the first session. */
async function openTime({ id, ...args }) {
  const open = loadStore(args);
  const start = performance.now();
  const store = open();
  const session = await store.get(id);
  const took = performance.now() - start;
  if (session === null) throw new Error("the session was not found");
  await store.close();
  return took;
}

module.exports = { openTime };
