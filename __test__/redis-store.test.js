"use strict";

const { describe } = require("node:test");
const { SessionStoreError } = require("..");
const { conformance } = require("./conformance.js");
const { makeRedisPlace } = require("./support/redis-places.js");
const { redisMissing } = require("./support/redis-servers.js");

const redis = makeRedisPlace();

const VARIANTS = {
  RedisStore: {},
  "RedisStore with a secret": { secret: ["a secret of some length", Buffer.alloc(32, 7)] },
  "RedisStore with limits": { maxSessionsPerUser: 1e6 },
  "RedisStore with a cache": { cache: {} },
  "RedisStore with a cache and a secret": { cache: {}, secret: Buffer.alloc(32, 7), maxSessionsPerUser: 1e6 },
};

describe("on a single server", { skip: redisMissing }, () => {
  for (const [name, given] of Object.entries(VARIANTS)) {
    const createStore = async (options, Store) => redis.open({ ...given, ...options }, Store);
    const ownStats = ["sweepError", "connections", ...(given.cache ? ["cache"] : [])];
    conformance(name, createStore, { SessionStoreError }, { isRemote: true, ownStats });
  }
});
