"use strict";

// Servers for the tests of one file, and independent stores on them.

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
 * Starts a server, `single` or `cluster`, before the tests, and stops it after them. Skip the tests with `redisMissing`
 * if there is no Redis.
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
    /** Returns the options of a new, empty store. */
    next: (options) => ({
      ...where(server),
      prefix: `place ${++made}:`,
      // No call should time out, even on a busy machine.
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
