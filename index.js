"use strict";

// Load this first: its error explains why the package cannot be loaded on this system.
require("./lib/native.js");
const { SessionStoreError } = require("./lib/errors.js");
const { FileStore } = require("./lib/file-store.js");
const { guardSession } = require("./lib/guard.js");
const { MemoryStore } = require("./lib/memory-store.js");
const { RedisStore } = require("./lib/redis-store.js");

module.exports = { FileStore, MemoryStore, RedisStore, SessionStoreError, guardSession };

const connect = {
  get ConnectStore() {
    return require("./connect.js").ConnectStore;
  },
};
// A getter loads it on first use. Node.js detects the name for `import { ConnectStore }` in this form of a getter.
Object.defineProperty(module.exports, "ConnectStore", {
  enumerable: true,
  get() {
    return connect.ConnectStore;
  },
});
