"use strict";

const { SessionStoreError } = require("./lib/errors.js");
const { guardSession } = require("./lib/guard.js");
const { MemoryStore } = require("./lib/memory-store.js");

module.exports = { MemoryStore, SessionStoreError, guardSession };
