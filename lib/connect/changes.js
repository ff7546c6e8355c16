"use strict";

const { isFastifySession } = require("./fastify-session.js");
const { timeOf } = require("./record.js");

// express-session reads the clock twice when it renews a cookie, so that `originalMaxAge` may differ a little.
const DRIFT = 1000;

/** A cookie as it is stored: express-session and @fastify/session give theirs a `toJSON`. */
const plain = (cookie) => (typeof cookie?.toJSON === "function" ? cookie.toJSON() : (cookie ?? {}));

/** A copy, as the app may change the cookie in place. */
const copyOf = (cookie) => cookie && { ...plain(cookie) };

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

/**
 * Whether a request ends its session sooner than the cookie that it loaded, at `expires` in milliseconds. To renew that
 * cookie is no such change, even if something else had given the session a longer life.
 */
function endsSooner(session, expires, loaded) {
  if (!session.cookie?.expires || !loaded?.cookie?.expires) return false;
  const { originalMaxAge } = loaded.cookie;
  const isRenewed = typeof session.touch === "function" && originalMaxAge > 0;
  const soonest = isRenewed ? loaded.at + originalMaxAge : Number.POSITIVE_INFINITY;
  return expires < Math.min(timeOf(loaded.expires), soonest);
}

/** Whether two sessions, as JSON gives them, have the same data, cookies apart. */
function isSameData(one, other) {
  const text = (session) => JSON.stringify({ ...session, cookie: undefined });
  return text(one) === text(other);
}

/**
 * Whether a session of @fastify/session says that the request has not changed it. It is saved with every response all
 * the same, and would undo what another request has saved.
 */
const isUnmodified = (session) => isFastifySession(session) && !session.isModified();

module.exports = { copyOf, endsSooner, isOtherCookie, isSameData, isUnmodified };
