"use strict";

// First, as it says what is missing on a system that cannot load the rest.
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
// Loaded where it is used. Node.js finds the name for `import { ConnectStore }` by this form of a getter.
Object.defineProperty(module.exports, "ConnectStore", {
  enumerable: true,
  get() {
    return connect.ConnectStore;
  },
});
