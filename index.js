"use strict";

const { SessionStoreError } = require("./lib/errors.js");
const { FileStore } = require("./lib/file-store.js");
const { guardSession } = require("./lib/guard.js");
const { MemoryStore } = require("./lib/memory-store.js");

module.exports = { FileStore, MemoryStore, SessionStoreError, guardSession };
