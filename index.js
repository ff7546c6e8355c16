"use strict";

const { SessionStoreError } = require("./lib/errors.js");
const { FileStore } = require("./lib/file-store.js");
const { guardSession } = require("./lib/guard.js");
const { MemoryStore } = require("./lib/memory-store.js");
const { RedisStore } = require("./lib/redis-store.js");

module.exports = { FileStore, MemoryStore, RedisStore, SessionStoreError, guardSession };
