"use strict";

const { warnOfSeconds } = require("./durations.js");
const { onBehalfOf } = require("./errors.js");
const native = require("./native.js");
const { KIND, Metrics } = require("./metrics.js");
const { limitsWarner } = require("./limits-differ.js");
const { isTool, redisOptions, validateOptions } = require("./options.js");
const { answerRequests } = require("./redis-credentials.js");
const { readCache, warnOfCache } = require("./redis-cache.js");
const { readServers } = require("./redis-servers.js");
const { readTls } = require("./redis-tls.js");
const { readSecrets } = require("./secrets.js");
const { SessionStore, callNative } = require("./session-store.js");
const { PendingCalls } = require("./pending-calls.js");

const DEFAULT_PREFIX = "fluid:";

// Calls that mostly complete synchronously with a cache.
const SAMPLED = [KIND.get];

// Bun and Deno export libuv's functions, but do not implement them.
const eventLoop = process.versions.bun === undefined && process.versions.deno === undefined;

// Keeps each store's credentials function alive as long as the store.
const KEPT = new WeakMap();

/** Sessions in Redis. `index.d.ts` documents it. */
class RedisStore extends SessionStore {
  constructor(options) {
    const opened = onBehalfOf(RedisStore, () => open(options));
    const { store, db, credentials, metrics, calls, given } = opened;
    super(db, store, metrics, calls, given);
    if (credentials !== undefined) KEPT.set(this, credentials);
  }

  async stats() {
    const { sweepError = null, cache, ...counters } = await super.stats();
    const own = { ...counters, sweepError };
    return cache === undefined ? own : { ...own, cache: { ...cache, off: cache.off ?? null } };
  }
}

function open(options) {
  const { url, cluster, sentinel, username, password, credentials, tls, secret, cache, ...given } =
    validateOptions(options, redisOptions, { of: "RedisStore", main: "url" });
  const servers = readServers({ url, cluster, sentinel, username, password, credentials });
  const settings = {
    prefix: DEFAULT_PREFIX,
    ...given,
    ...servers,
    ...readTls(tls, servers),
    cache: readCache(cache),
  };
  const secrets = readSecrets(secret);
  const metrics = new Metrics(settings.cache ? SAMPLED : []);
  const calls = new PendingCalls(metrics, { isEager: true });
  const ask = credentials && answerRequests(credentials);
  const warn = settings.cache && warnOfCache;
  const db = { type: "redis", mode: settings.mode, prefix: settings.prefix };
  const differ = limitsWarner(db, settings);
  const nativeSettings = { ...settings, secrets, eventLoop, isTool: options[isTool] };
  const store = callNative(() => native.openRedis(nativeSettings, calls.settle, ask, warn, differ));
  calls.attach(store, { kept: credentials });
  warnOfSeconds("maxLifetime of RedisStore", given.maxLifetime, { isLifetime: true });
  return { store, db, credentials, metrics, calls, given };
}

module.exports = { RedisStore };
