"use strict";

// express-session reckons `originalMaxAge` from the clock when it renews a cookie, and may be off by some.
const DRIFT = 1000;

/** A cookie as it is stored: express-session and @fastify/session give theirs a `toJSON`. */
const plain = (cookie) => (typeof cookie?.toJSON === "function" ? cookie.toJSON() : (cookie ?? {}));

/** A copy of it, as whoever has it may change it where it is. */
const copyOf = (cookie) => cookie && { ...plain(cookie) };

/** What says when a cookie ends; `originalExpires` is @fastify/session's. */
const isOfExpiry = (name) => name === "expires" || name === "originalExpires" || name === "originalMaxAge";

/** Whether one has an attribute that is not the other's. Each request asks that, so no object is made for it. */
function hasOther(one, other) {
  for (const name of Object.keys(one)) {
    if (!isOfExpiry(name) && (one[name] ?? null) !== (other[name] ?? null)) return true;
  }
  return false;
}

/** Whether a session's cookie differs from the one before in more than the time of its expiry. */
function isOtherCookie(before, after) {
  if (after === undefined) return false;
  const old = plain(before);
  const given = plain(after);
  if (Boolean(old.expires) !== Boolean(given.expires)) return true;
  if (Math.abs((old.originalMaxAge ?? 0) - (given.originalMaxAge ?? 0)) > DRIFT) return true;
  return hasOther(old, given) || hasOther(given, old);
}

/** Whether two sessions, as JSON gives them, hold the same besides their cookies. */
function isSameData(one, other) {
  const text = (session) => JSON.stringify({ ...session, cookie: undefined });
  return text(one) === text(other);
}

/**
 * Whether a session says that the request has not changed it: one of @fastify/session, which saves it with every answer
 * all the same, and would undo what another request has saved meanwhile.
 */
const isUnmodified = (session) => typeof session.isModified === "function" && !session.isModified();

module.exports = { copyOf, isOtherCookie, isSameData, isUnmodified };
