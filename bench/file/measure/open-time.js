"use strict";

const { directoryOf, loadStore } = require("../stores.js");

/** Milliseconds from the constructor's call to the first session. */
async function openTime({ store: name, directory, id }) {
  const Store = loadStore(name);
  const start = performance.now();
  const store = new Store(directoryOf(name, directory));
  const session = await store.get(id);
  const took = performance.now() - start;
  if (session === null) throw new Error("the session was not found");
  await store.close();
  return took;
}

module.exports = { openTime };
