"use strict";

// express-session reckons `originalMaxAge` from the clock when it renews a cookie, and may be off by some.
const DRIFT = 1000;

/** A cookie as it is stored: express-session and @fastify/session give theirs a `toJSON`. */
const plain = (cookie) => (typeof cookie?.toJSON === "function" ? cookie.toJSON() : (cookie ?? {}));

/** Whether a session's cookie differs from the one before in more than the time of its expiry. */
function isOtherCookie(before, after) {
  if (after === undefined) return false;
  const { expires: oldExpires, originalMaxAge: oldMaxAge, ...old } = plain(before);
  const { expires, originalMaxAge, ...given } = plain(after);
  if (Boolean(oldExpires) !== Boolean(expires)) return true;
  if (Math.abs((oldMaxAge ?? 0) - (originalMaxAge ?? 0)) > DRIFT) return true;
  const attributes = new Set([...Object.keys(old), ...Object.keys(given)]);
  return [...attributes].some((name) => (old[name] ?? null) !== (given[name] ?? null));
}

/** Whether two sessions, as JSON gives them, hold the same besides their cookies. */
function isSameData(one, other) {
  const text = (session) => JSON.stringify({ ...session, cookie: undefined });
  return text(one) === text(other);
}

module.exports = { isOtherCookie, isSameData };
