"use strict";

const { SessionStoreError, kindOf } = require("../errors.js");
const { isoOf } = require("../iso.js");
const { sessionToJson } = require("../session-codec.js");
const { copyOf, hasJson } = require("./cookie.js");
const { lifetimeOf, userOf } = require("./options.js");

/**
 * The form in which our stores keep a session of express-session or @fastify/session:
 * `{ sessionId: prefix + sid, expires, userId?, session: { cookie, … } }`.
 */

// What comes before the expiry in the text of a record. In that of the id a quote has a backslash before it.
const EXPIRES = '","expires":"';
// How the session begins. In both frameworks the cookie is the first.
const COOKIE = '"session":{"cookie":{';

const isEnumerable = Object.prototype.propertyIsEnumerable;

// The range of JavaScript's time.
const MAX_TIME = 8.64e15;

function invalid(field, expected, given) {
  return new SessionStoreError("ERR_INVALID_SESSION", `${field} must be ${expected}; got ${given}`);
}

/** The id of a session in the store. */
function idOf(sid, prefix) {
  if (typeof sid !== "string" || sid === "") throw invalid("sessionId", "a non-empty string", kindOf(sid));
  return prefix + sid;
}

/** The time of whatever `new Date` takes. */
function timeOf(date) {
  if (Number.isInteger(date) && Math.abs(date) <= MAX_TIME) return date;
  return (date instanceof Date ? date : new Date(date)).getTime();
}

/** When a session ends, in milliseconds: when its cookie does, or after `ttl`. */
function expiryOf(session, ttl) {
  if (session === null || typeof session !== "object") throw invalid("session", "an object", kindOf(session));
  const expires = timeOf(session.cookie?.expires || Number.NaN);
  // In JSON a date that is none is null, as is that of a cookie without one.
  return Number.isNaN(expires) ? timeOf(Date.now() + lifetimeOf(ttl, session)) : expires;
}

/**
 * A session that is to be stored, as the text of its record: `{ id, expires, user, cookie, json }`. `expires` is in
 * milliseconds, `cookie` is a copy.
 */
function recordOf(sid, session, { prefix, ttl, userId }) {
  const id = idOf(sid, prefix);
  const expires = expiryOf(session, ttl);
  const user = userOf(userId, session);
  const cookie = copyOf(session.cookie);
  // Throws for an array, and for a session that JSON leaves out.
  if (hasJson(session) || Array.isArray(session)) sessionToJson(session);
  const given = withCookie(session, cookie);
  const json = sessionToJson({ sessionId: id, expires: isoOf(expires), userId: user, session: given });
  return { id, expires, user, cookie, json };
}

/**
 * A session with the copy in place of its cookie, if JSON makes the same of it. `JSON.stringify` takes twice as long for
 * a cookie with a `toJSON` and a `Date`.
 */
function withCookie(session, cookie) {
  if (cookie === undefined || hasJson(session) || !isEnumerable.call(session, "cookie")) return session;
  try {
    return { ...session, cookie };
  } catch {
    // A getter has thrown, and will again.
    return session;
  }
}

/**
 * Whether the text of a loaded record has the user and the data of a record that is to be stored. The two expiries and the
 * cookie may differ. Returns `false` where it cannot know, such as for a text that others have written.
 */
function hasSameData(text, { json, expires, user }) {
  // A reply of the store may begin with its kind and a number.
  const start = text.indexOf("{");
  const expiresAt = json.indexOf(EXPIRES) + EXPIRES.length;
  const userAt = expiresAt + isoOf(expires).length + '",'.length;
  const sessionAt = userAt + (user === undefined ? 0 : `"userId":${JSON.stringify(user)},`.length);
  if (!json.startsWith(COOKIE, sessionAt) || !text.startsWith(COOKIE, start + sessionAt)) return false;
  // The first brace may be one within the cookie. All of the data comes after it even so.
  const [textEnd, end] = [text.indexOf("}", start + sessionAt), json.indexOf("}", sessionAt)];
  // Slices, as `===` of two is a fourth of the time of `startsWith` or `endsWith`.
  return (
    text.length - textEnd === json.length - end &&
    text.slice(textEnd) === json.slice(end) &&
    text.slice(start, start + expiresAt) === json.slice(0, expiresAt) &&
    text.indexOf('"', start + expiresAt) === start + userAt - 2 &&
    text.slice(start + userAt, start + sessionAt) === json.slice(userAt, sessionAt)
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
