"use strict";

const { SessionStoreError, kindOf } = require("../errors.js");
const { isoOf } = require("../iso.js");
const { sessionToJson } = require("../session-codec.js");
const { copyOf, hasJson } = require("./cookie.js");
const { lifetimeOf, userOf } = require("./options.js");

/**
 * The record of a session of express-session or @fastify/session in our stores: `{ sessionId: prefix + sid, expires,
 * userId?, session: { cookie, … } }`.
 */

// The text before the expiry in a record. It cannot occur in the id, where quotes are escaped.
const EXPIRES = '","expires":"';
// The start of the session. The cookie is its first field in both frameworks.
const COOKIE = '"session":{"cookie":{';

const isEnumerable = Object.prototype.propertyIsEnumerable;

// The maximum time of a JavaScript `Date`, in milliseconds.
const MAX_TIME = 8.64e15;

function invalid(field, expected, given) {
  return new SessionStoreError("ERR_INVALID_SESSION", `${field} must be ${expected}; got ${given}`);
}

/** Returns the id of a session in the store. */
function idOf(sid, prefix) {
  if (typeof sid !== "string" || sid === "") throw invalid("sessionId", "a non-empty string", kindOf(sid));
  return prefix + sid;
}

/** Converts any value that `new Date` accepts to milliseconds. */
function timeOf(date) {
  if (Number.isInteger(date) && Math.abs(date) <= MAX_TIME) return date;
  return (date instanceof Date ? date : new Date(date)).getTime();
}

/** Returns when a session ends, in milliseconds: the end of its cookie, or after `ttl`. */
function expiryOf(session, ttl) {
  if (session === null || typeof session !== "object") throw invalid("session", "an object", kindOf(session));
  const expires = timeOf(session.cookie?.expires || Number.NaN);
  // In JSON an invalid date is null, the same as no date.
  return Number.isNaN(expires) ? timeOf(Date.now() + lifetimeOf(ttl, session)) : expires;
}

/**
 * Builds the record of a session: `{ id, expires, user, cookie, json }`. `expires` is in milliseconds, `cookie` is a
 * copy, `json` is the text of the record.
 */
function recordOf(sid, session, { prefix, ttl, userId }) {
  const id = idOf(sid, prefix);
  const expires = expiryOf(session, ttl);
  const user = userOf(userId, session);
  const cookie = copyOf(session.cookie);
  // Throws for an array, and for a session that has no JSON form.
  if (hasJson(session) || Array.isArray(session)) sessionToJson(session);
  const given = withCookie(session, cookie);
  const json = sessionToJson({ sessionId: id, expires: isoOf(expires), userId: user, session: given });
  return { id, expires, user, cookie, json };
}

/**
 * Replaces the cookie of a session by its copy, if the JSON is the same. `JSON.stringify` takes twice as long for a
 * cookie with a `toJSON` and a `Date`.
 */
function withCookie(session, cookie) {
  if (cookie === undefined || hasJson(session) || !isEnumerable.call(session, "cookie")) return session;
  try {
    return { ...session, cookie };
  } catch {
    // A getter threw. `JSON.stringify` will report the error.
    return session;
  }
}

/**
 * Whether the text of a loaded record has the same user and data as a new record. The expiries and the cookie may
 * differ. Returns `false` if it cannot tell, for example for text that another program wrote.
 */
function hasSameData(text, { id, json, expires, user }) {
  // A reply of the store may start with its kind and a number.
  const start = text.indexOf("{");
  const expiresAt = json.indexOf(EXPIRES, id.length) + EXPIRES.length;
  const userAt = expiresAt + isoOf(expires).length + '",'.length;
  const sessionAt = userAt + (user === undefined ? 0 : `"userId":${JSON.stringify(user)},`.length);
  // This brace may be inside the cookie. All data comes after it in any case.
  const textEnd = text.indexOf("}", start + sessionAt);
  const end = json.indexOf("}", sessionAt);
  // The data first, because it differs most often. Comparing slices with `===` takes a fourth of the time of
  // `startsWith` or `endsWith`.
  return (
    text.length - textEnd === json.length - end &&
    text.slice(textEnd) === json.slice(end) &&
    json.startsWith(COOKIE, sessionAt) &&
    text.startsWith(COOKIE, start + sessionAt) &&
    text.slice(start, start + expiresAt) === json.slice(0, expiresAt) &&
    text.indexOf('"', start + expiresAt) === start + userAt - 2 &&
    text.slice(start + userAt, start + sessionAt) === json.slice(userAt, sessionAt)
  );
}

/** Returns the session of a record, or `null`. */
function sessionOf(record) {
  // In a shared store, a record may belong to another app.
  if (typeof record?.session !== "object" || record.session === null) return null;
  const { expires, session } = record;
  // `touch` moves only the expiry of the record.
  if (session.cookie?.expires) {
    // Another program may have stored a number. Frameworks take the expiry of a cookie from its ISO text.
    session.cookie.expires = typeof expires === "number" ? new Date(expires).toISOString() : expires;
  }
  return session;
}

module.exports = { expiryOf, hasSameData, idOf, recordOf, sessionOf, timeOf };
