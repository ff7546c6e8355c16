"use strict";

const { warnOfSeconds } = require("./durations.js");
const { onBehalfOf } = require("./errors.js");
const native = require("./native.js");
const { KIND, Metrics } = require("./metrics.js");
const { memoryOptions, validateOptions } = require("./options.js");
const { SessionStore, callNative } = require("./session-store.js");

// Calls that complete synchronously.
const SAMPLED = [KIND.get, KIND.create, KIND.update, KIND.touch, KIND.delete];

/** Sessions in native memory. `index.d.ts` documents it. */
class MemoryStore extends SessionStore {
  constructor(options) {
    const { store, given } = onBehalfOf(MemoryStore, () => open(options));
    super({ type: "memory", name: given.name ?? null }, store, new Metrics(SAMPLED), undefined, given);
  }
}

function open(options) {
  const given = validateOptions(options, memoryOptions, { of: "MemoryStore" });
  const store = callNative(() => native.openMemory(given));
  warnOfSeconds("maxLifetime of MemoryStore", given.maxLifetime, { isLifetime: true });
  return { store, given };
}

module.exports = { MemoryStore };
