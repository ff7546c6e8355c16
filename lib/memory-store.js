"use strict";

const native = require("./native.js");
const { KIND, Metrics } = require("./metrics.js");
const { memoryOptions, validateOptions } = require("./options.js");
const { SessionStore, callNative } = require("./session-store.js");

// The calls that end at once.
const SAMPLED = [KIND.get, KIND.create, KIND.update, KIND.touch, KIND.delete];

/** Sessions in native memory. `index.d.ts` documents it. */
class MemoryStore extends SessionStore {
  constructor(options) {
    const given = validateOptions(options, memoryOptions);
    super(
      { type: "memory", name: given.name ?? null },
      callNative(() => native.openMemory(given)),
      new Metrics(SAMPLED),
    );
  }
}

module.exports = { MemoryStore };
