"use strict";

const assert = require("node:assert/strict");

/**
 * Asserts that a request without changes keeps a concurrent save of another request. `serve(answer)` starts an app that
 * responds with `await answer(path, session)`, and resolves to a function that sends requests.
 */
async function assertKeepsOtherSave(store, sidOf, serve) {
  let reached;
  let open;
  const isReached = new Promise((resolve) => {
    reached = resolve;
  });
  const opened = new Promise((resolve) => {
    open = resolve;
  });
  const ask = await serve(async (path, session) => {
    if (path === "/slow") {
      reached();
      await opened;
    } else session.step = path;
    return session.step;
  });
  const jar = {};
  await ask("/1", jar);
  const before = (await store.store.get(sidOf(jar))).expires;
  const slow = ask("/slow", { ...jar });
  await isReached;
  // Two requests may arrive in the same millisecond.
  await new Promise((resolve) => setTimeout(resolve, 5));
  await ask("/2", jar);
  open();
  assert.equal((await slow).body, "/1");
  assert.equal((await store.get(sidOf(jar))).step, "/2");
  assert.ok((await store.store.get(sidOf(jar))).expires > before);
}

module.exports = { assertKeepsOtherSave };
