"use strict";

const { it } = require("node:test");
const { RedisStore, SessionStoreError } = require("..");
const { conformance } = require("./conformance.js");
const { isInstalled, newPlace } = require("./support/redis-single.js");

const withOptions =
  (given) =>
  async (options, Store = RedisStore) =>
    new Store({ ...(await newPlace()), ...given, ...options });

if (isInstalled) {
  conformance("RedisStore", withOptions({}), { SessionStoreError });
  conformance(
    "RedisStore with a secret",
    withOptions({ secret: ["a secret of some length", Buffer.alloc(32, 7)] }),
    { SessionStoreError },
  );
  conformance("RedisStore with limits", withOptions({ maxSessionsPerUser: 1e6 }), { SessionStoreError });
} else {
  it("RedisStore keeps the contract", { skip: "redis-server is not installed" }, () => {});
}
