"use strict";

const { cacheOptions, validateOptions } = require("./options.js");

const DEFAULT_MAX_BYTES = 64 * 2 ** 20;
const DEFAULT_MAX_STALENESS = 1000;

/** Converts the option `cache` of a `RedisStore` for the addon. */
function readCache(cache) {
  if (cache === undefined) return undefined;
  const given = validateOptions(cache, cacheOptions, { within: "cache" });
  const { maxBytes = DEFAULT_MAX_BYTES, maxStaleness = DEFAULT_MAX_STALENESS } = given;
  return { maxBytes, maxStaleness };
}

/** Warns that the store works without its cache. */
function warnOfCache(reason) {
  process.emitWarning(`RedisStore goes without its cache: ${reason}`, { code: "NATIVE_STORE_CACHE_OFF" });
}

module.exports = { readCache, warnOfCache };
