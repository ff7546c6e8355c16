"use strict";

const { isoOf } = require("../iso.js");

// Milliseconds. express-session reads the clock twice when it renews a cookie, so `originalMaxAge` varies a little.
const DRIFT = 1000;

/** Whether a value has a JSON form of its own. */
const hasJson = (value) => typeof value?.toJSON === "function";

/**
 * Returns a copy with the expiry in its JSON form, because the app may change the cookie in place. Returns `undefined`
 * if it is not an object. The cookies of express-session and @fastify/session have a `toJSON`.
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

/** Whether the attribute is about the end of a cookie. `originalExpires` belongs to @fastify/session. */
const isOfExpiry = (name) => name === "expires" || name === "originalExpires" || name === "originalMaxAge";

/** Whether a cookie differs from the copy of another in more than its expiry. */
function isOtherCookie(before, after) {
  if (after === undefined) return false;
  const old = before ?? {};
  const given = hasJson(after) ? after.toJSON("cookie") : { ...after };
  if (Boolean(old.expires) !== Boolean(given.expires)) return true;
  if (Math.abs((old.originalMaxAge ?? 0) - (given.originalMaxAge ?? 0)) > DRIFT) return true;
  return hasOtherAttributes(old, given);
}

/** Runs in every request, so it allocates no object. */
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
