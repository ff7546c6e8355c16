"use strict";

const { isoOf } = require("../iso.js");

// express-session reads the clock twice when it renews a cookie, so that `originalMaxAge` may differ a little.
const DRIFT = 1000;

/** A cookie as it is stored: express-session and @fastify/session give theirs a `toJSON`. */
const plain = (cookie) => (typeof cookie?.toJSON === "function" ? cookie.toJSON("cookie") : (cookie ?? {}));

/**
 * A copy with the expiry as JSON has it, as the app may change the cookie in place; `undefined` for what is no cookie.
 */
function copyOf(cookie) {
  const given = cookie && plain(cookie);
  if (typeof given !== "object" || given === null || Array.isArray(given)) return undefined;
  const copy = { ...given };
  if (copy.expires instanceof Date) {
    const time = copy.expires.getTime();
    copy.expires = Number.isNaN(time) ? null : isoOf(time);
  }
  return copy;
}

/** The attributes that say when a cookie ends. `originalExpires` is of @fastify/session. */
const isOfExpiry = (name) => name === "expires" || name === "originalExpires" || name === "originalMaxAge";

/** Whether an attribute of one differs from the other's. Every request asks this, so it allocates nothing. */
function hasOther(one, other) {
  for (const name of Object.keys(one)) {
    if (!isOfExpiry(name) && (one[name] ?? null) !== (other[name] ?? null)) return true;
  }
  return false;
}

/** Whether two cookies differ in more than the time of their expiry. */
function isOtherCookie(before, after) {
  if (after === undefined) return false;
  const old = plain(before);
  const given = plain(after);
  if (Boolean(old.expires) !== Boolean(given.expires)) return true;
  if (Math.abs((old.originalMaxAge ?? 0) - (given.originalMaxAge ?? 0)) > DRIFT) return true;
  return hasOther(old, given) || hasOther(given, old);
}

module.exports = { copyOf, isOtherCookie };
