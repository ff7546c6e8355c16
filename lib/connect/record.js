"use strict";

const { SessionStoreError, kindOf } = require("../errors.js");
const { lifetimeOf, userOf } = require("./options.js");

/**
 * The form in which our stores keep a session of express-session or @fastify/session:
 * `{ sessionId: prefix + sid, expires, userId?, session: { cookie, … } }`.
 */

function invalid(field, expected, given) {
  return new SessionStoreError("ERR_INVALID_SESSION", `${field} must be ${expected}; got ${given}`);
}

/** The id of a session in the store. */
function idOf(sid, prefix) {
  if (typeof sid !== "string" || sid === "") throw invalid("sessionId", "a non-empty string", kindOf(sid));
  return prefix + sid;
}

const timeOf = (date) => new Date(date).getTime();

/** When a session ends, in milliseconds: when its cookie does, or after `ttl`. */
function expiryOf(session, ttl) {
  if (session === null || typeof session !== "object") throw invalid("session", "an object", kindOf(session));
  const expires = timeOf(session.cookie?.expires || Number.NaN);
  // In JSON a date that is none is null, as is that of a cookie without one.
  return Number.isNaN(expires) ? timeOf(Date.now() + lifetimeOf(ttl, session)) : expires;
}

function recordOf(sid, session, { prefix, ttl, userId }) {
  const sessionId = idOf(sid, prefix);
  const expires = new Date(expiryOf(session, ttl)).toISOString();
  return { sessionId, expires, userId: userOf(userId, session), session };
}

/** The session of a record, or `null` where there is none. */
function sessionOf(record) {
  // In a store that serves others too, a record may be one of theirs.
  if (typeof record?.session !== "object" || record.session === null) return null;
  const { expires, session } = record;
  // `touch` has moved the record's alone.
  if (session.cookie?.expires) session.cookie.expires = expires;
  return session;
}

module.exports = { idOf, expiryOf, recordOf, sessionOf, timeOf };
