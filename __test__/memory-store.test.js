"use strict";

const { MemoryStore, SessionStoreError } = require("..");
const { conformance } = require("./conformance.js");

conformance("MemoryStore", async (options, Store = MemoryStore) => new Store(options), { SessionStoreError });
conformance(
  "MemoryStore with limits",
  async (options, Store = MemoryStore) =>
    new Store({ maxSessions: 1e6, maxBytes: 1e9, maxSessionsPerUser: 1e6, ...options }),
  { SessionStoreError },
);
