"use strict";

const native = require("./native.js");
const { memoryOptions, validateOptions } = require("./options.js");
const { SessionStore, callNative } = require("./session-store.js");

/** Sessions in native memory. `index.d.ts` documents it. */
class MemoryStore extends SessionStore {
  constructor(options) {
    const given = validateOptions(options, memoryOptions);
    super(
      { type: "memory", name: given.name ?? null },
      callNative(() => native.openMemory(given)),
    );
  }
}

module.exports = { MemoryStore };
