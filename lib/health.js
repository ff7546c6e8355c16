"use strict";

// Import the functions at load: tests with fake timers replace the global ones.
const { clearTimeout, setTimeout } = require("node:timers");
const { SessionStoreError, makeError } = require("./errors.js");
const native = require("./native.js");

const READY_TIMEOUT = 10_000;
// For stores without a `commandTimeout`.
const PING_TIMEOUT = 2000;

const pingTimeout = (store) => native.commandTimeoutOf(store) ?? PING_TIMEOUT;

/** Resolves once the native store can serve. Rejects with the reason after `timeout`. */
async function probe(store, type, timeout) {
  const probing = native.ping(store, timeout);
  // Other stores have their own deadlines. A write to a disk has none.
  await (type === "file" ? within(timeout, probing) : probing);
}

async function within(millis, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    const message = `the disk, or another process that has the store open, did not answer within ${millis} ms`;
    timer = setTimeout(() => reject(new SessionStoreError("ERR_STORE_TIMEOUT", message)), millis);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Converts a problem of the addon to the `problem` in `stats()`. */
function describeProblem(problem) {
  if (problem === undefined) return null;
  const { code, reason, message } = makeError(problem.code, problem.message);
  return reason === undefined ? { code, message } : { code, reason, message };
}

module.exports = { READY_TIMEOUT, describeProblem, pingTimeout, probe };
