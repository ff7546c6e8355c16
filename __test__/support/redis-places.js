"use strict";

// Servers for the tests of one file, and stores in them that know nothing of each other.

const { after, before } = require("node:test");
const { RedisStore } = require("../..");
const { redisMissing, startCluster, startServer } = require("./redis-servers.js");

const KINDS = {
  single: { start: () => startServer(), where: ({ url }) => ({ url }), stop: (server) => server.kill() },
  cluster: {
    start: () => startCluster(),
    where: ({ urls }) => ({ cluster: urls }),
    stop: (cluster) => cluster.stop(),
  },
};

/**
 * Starts a server of a kind, `single` or `cluster`, before the tests and stops it after them; where there is no Redis,
 * they are to be skipped by `redisMissing`.
 */
function makeRedisPlace(kind = "single") {
  const { start, where, stop } = KINDS[kind];
  let made = 0;
  let server;
  before(async () => {
    if (!redisMissing) server = await start();
  });
  after(() => server && stop(server));
  return {
    get servers() {
      return server;
    },
    /** The options of a new store that is empty. */
    next: (options) => ({
      ...where(server),
      prefix: `place ${++made}:`,
      // On a busy machine no call is to fail by it.
      commandTimeout: 30_000,
      sweepInterval: 0,
      ...options,
    }),
    open(options, Store = RedisStore) {
      return new Store(this.next(options));
    },
  };
}

module.exports = { makeRedisPlace };
