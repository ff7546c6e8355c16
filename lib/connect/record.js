"use strict";

const { SessionStoreError, kindOf } = require("../errors.js");
const { isoOf } = require("../iso.js");
const { sessionToJson, userToJson } = require("../session-codec.js");
const { copyOf } = require("./cookie.js");
const { lifetimeOf, userOf } = require("./options.js");

/**
 * The form in which our stores keep a session of express-session or @fastify/session:
 * `{ sessionId: prefix + sid, expires, userId?, session: { cookie, … } }`.
 */

// How the session begins in the text of a record. In both frameworks the cookie is the first.
const COOKIE = '"session":{"cookie":{';

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

/**
 * A session that is to be stored, as the text of its record: `{ id, expires, cookie, json, expiresAt, userAt,
 * sessionAt }`. `expires` is in milliseconds, `cookie` is a copy. The last three are where in the text the expiry is, what
 * comes after it, and the session.
 */
function recordOf(sid, session, { prefix, ttl, userId }) {
  const id = idOf(sid, prefix);
  const expires = expiryOf(session, ttl);
  const user = userOf(userId, session);
  const cookie = copyOf(session.cookie);
  const before = `{"sessionId":${JSON.stringify(id)},"expires":"`;
  const head = `${before}${isoOf(expires)}",`;
  const owner = user === undefined ? "" : `"userId":${userToJson(user)},`;
  const json = `${head}${owner}"session":${sessionToJson(withCookie(session, cookie))}}`;
  const [expiresAt, userAt] = [before.length, head.length];
  return { id, expires, cookie, json, expiresAt, userAt, sessionAt: userAt + owner.length };
}

/**
 * A session with the copy in place of its cookie, if JSON makes the same of it. `JSON.stringify` takes twice as long for
 * a cookie with a `toJSON` and a `Date`.
 */
function withCookie(session, cookie) {
  const isPlain = cookie !== undefined && typeof session.toJSON !== "function";
  if (!isPlain || !Object.prototype.propertyIsEnumerable.call(session, "cookie")) return session;
  try {
    return { ...session, cookie };
  } catch {
    // A getter has thrown, and will again.
    return session;
  }
}

/**
 * Whether the text of a loaded record has the user and the data of a record that is to be stored: all but the two expiries
 * and the cookie. It says no where it cannot know, as of a text that others have written.
 */
function hasSameData(text, { json, expiresAt, userAt, sessionAt }) {
  // A reply of the store may begin with its kind and a number.
  const start = text.indexOf("{");
  if (!json.startsWith(COOKIE, sessionAt) || !text.startsWith(COOKIE, start + sessionAt)) return false;
  // The first brace may be one within the cookie. All of the data comes after it even so.
  const rest = json.slice(json.indexOf("}", sessionAt));
  return (
    text.indexOf("}", start + sessionAt) === text.length - rest.length &&
    text.endsWith(rest) &&
    text.startsWith(json.slice(0, expiresAt), start) &&
    text.indexOf('"', start + expiresAt) === start + userAt - 2 &&
    text.startsWith(json.slice(userAt, sessionAt), start + userAt)
  );
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

module.exports = { expiryOf, hasSameData, idOf, recordOf, sessionOf, timeOf };
