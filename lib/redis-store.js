"use strict";

const native = require("./native.js");
const { redisOptions, validateOptions } = require("./options.js");
const { readServers, readTls } = require("./redis-servers.js");
const { readSecrets } = require("./secrets.js");
const { SessionStore, callNative } = require("./session-store.js");
const { PendingCalls } = require("./pending-calls.js");

const DEFAULT_PREFIX = "fluid:";

// Others than Node have libuv's functions in name only.
const eventLoop = process.versions.bun === undefined && process.versions.deno === undefined;

/** Sessions in Redis. `index.d.ts` documents it. */
class RedisStore extends SessionStore {
  constructor(options) {
    const { url, cluster, sentinel, tls, secret, ...given } = validateOptions(options, redisOptions);
    const servers = readServers({ url, cluster, sentinel });
    const settings = { prefix: DEFAULT_PREFIX, ...given, ...servers, ...readTls(tls, servers) };
    const secrets = readSecrets(secret);
    const calls = new PendingCalls({ isEager: true });
    const store = callNative(() => native.openRedis({ ...settings, secrets, eventLoop }, calls.settle));
    calls.attach(store);
    super({ type: "redis", mode: settings.mode, prefix: settings.prefix }, store, calls);
  }

  async stats() {
    const { sweepError = null, ...counters } = await super.stats();
    return { ...counters, sweepError };
  }
}

module.exports = { RedisStore };
