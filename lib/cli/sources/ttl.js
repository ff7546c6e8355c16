"use strict";

const { wrongUsage } = require("../failures.js");

/** The `--ttl` of the options in milliseconds, or `undefined`. */
function readTtl({ ttl }) {
  if (ttl === undefined) return undefined;
  if (!/^[1-9]\d{0,14}$/.test(ttl)) {
    throw wrongUsage(`--ttl must be a whole number of milliseconds from 1; got ${JSON.stringify(ttl)}`);
  }
  return Number(ttl);
}

/**
 * When a session ends that the old store would never end: with its cookie, or after the `ttl` if that is later. A cookie
 * without an end counts as one that ends now.
 */
function endOfEndless({ expires }, ttl, defaultTtl) {
  const ofCookie = typeof expires === "string" ? Date.parse(expires) : Number.NaN;
  if (Number.isNaN(ofCookie)) return Date.now() + (ttl ?? defaultTtl);
  return ttl === undefined ? ofCookie : Math.max(ofCookie, Date.now() + ttl);
}

module.exports = { endOfEndless, readTtl };
