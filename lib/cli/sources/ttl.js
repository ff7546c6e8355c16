"use strict";

const { wrongUsage } = require("../failures.js");

/** Returns `--ttl` in milliseconds, or `undefined`. */
function readTtl({ ttl }) {
  if (ttl === undefined) return undefined;
  if (!/^[1-9]\d{0,14}$/.test(ttl)) {
    throw wrongUsage(`--ttl must be a whole number of milliseconds from 1; got ${JSON.stringify(ttl)}`);
  }
  return Number(ttl);
}

/**
 * Returns the end of a session that the old store would never end: the end of its cookie, or after `ttl` if that is
 * later. A cookie without an end counts as ending now.
 */
function endOfEndless({ expires }, ttl, defaultTtl) {
  const ofCookie = typeof expires === "string" ? Date.parse(expires) : Number.NaN;
  if (Number.isNaN(ofCookie)) return Date.now() + (ttl ?? defaultTtl);
  return ttl === undefined ? ofCookie : Math.max(ofCookie, Date.now() + ttl);
}

module.exports = { endOfEndless, readTtl };
