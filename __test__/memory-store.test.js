"use strict";

const { MemoryStore, SessionStoreError } = require("..");
const { conformance } = require("./conformance.js");

conformance("MemoryStore", async (options) => new MemoryStore(options), { SessionStoreError });
conformance(
  "MemoryStore with limits",
  async (options) =>
    new MemoryStore({ maxSessions: 1e6, maxBytes: 1e9, maxSessionsPerUser: 1e6, ...options }),
  { SessionStoreError },
);
