"use strict";

const { it } = require("node:test");
const { RedisStore, SessionStoreError } = require("..");
const { conformance } = require("./conformance.js");
const { isInstalled, newPlace } = require("./support/redis-single.js");

const withOptions =
  (given) =>
  async (options, Store = RedisStore) =>
    new Store({ ...(await newPlace()), ...given, ...options });

const VARIANTS = {
  RedisStore: {},
  "RedisStore with a secret": { secret: ["a secret of some length", Buffer.alloc(32, 7)] },
  "RedisStore with limits": { maxSessionsPerUser: 1e6 },
};

if (isInstalled) {
  for (const [name, given] of Object.entries(VARIANTS)) {
    conformance(name, withOptions(given), { SessionStoreError }, { isRemote: true });
  }
} else {
  it("RedisStore keeps the contract", { skip: "redis-server is not installed" }, () => {});
}
