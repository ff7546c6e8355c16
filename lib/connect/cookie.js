"use strict";

const { isoOf } = require("../iso.js");

// express-session reads the clock twice when it renews a cookie, so that `originalMaxAge` may differ a little.
const DRIFT = 1000;

/** Whether a value has a JSON form of its own. */
const hasJson = (value) => typeof value?.toJSON === "function";

/**
 * A copy with the expiry as JSON has it, as the app may change the cookie in place. Returns `undefined` for no object.
 * express-session and @fastify/session give theirs a `toJSON`.
 */
function copyOf(cookie) {
  const given = hasJson(cookie) ? cookie.toJSON("cookie") : cookie;
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

/** Whether a cookie differs from the copy of another in more than the time of their expiry. */
function isOtherCookie(before, after) {
  if (after === undefined) return false;
  const old = before ?? {};
  const given = hasJson(after) ? after.toJSON("cookie") : { ...after };
  if (Boolean(old.expires) !== Boolean(given.expires)) return true;
  if (Math.abs((old.originalMaxAge ?? 0) - (given.originalMaxAge ?? 0)) > DRIFT) return true;
  return hasOtherAttributes(old, given);
}

/** Every request asks this of two plain objects, so it makes none. */
function hasOtherAttributes(old, given) {
  let found = 0;
  for (const name in given) {
    const value = given[name] ?? null;
    if (value === null || isOfExpiry(name)) continue;
    if (value !== old[name]) return true;
    found++;
  }
  for (const name in old) {
    if ((old[name] ?? null) !== null && !isOfExpiry(name)) found--;
  }
  return found !== 0;
}

module.exports = { DRIFT, copyOf, hasJson, isOtherCookie };
