"use strict";

// Kept from when this module is loaded: suites with fake timers replace the globals.
const { clearTimeout, setTimeout } = require("node:timers");
const { SessionStoreError, makeError } = require("./errors.js");
const native = require("./native.js");

const READY_TIMEOUT = 10_000;
// Of a store without a `commandTimeout`.
const PING_TIMEOUT = 2000;

const pingTimeout = (store) => native.commandTimeoutOf(store) ?? PING_TIMEOUT;

/** Resolves once the native store can serve; rejects with the reason when the time is over. */
async function probe(store, type, timeout) {
  const probing = native.ping(store, timeout);
  // The others end by themselves. A write to a disk does not.
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

/** What `stats()` says of a problem, whose code is the addon's. */
function describeProblem(problem) {
  if (problem === undefined) return null;
  const { code, reason, message } = makeError(problem.code, problem.message);
  return reason === undefined ? { code, message } : { code, reason, message };
}

module.exports = { READY_TIMEOUT, describeProblem, pingTimeout, probe };
