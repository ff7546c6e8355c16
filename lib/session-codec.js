"use strict";

const { types } = require("node:util");
const { SessionStoreError, kindOf } = require("./errors.js");
const { isoOf } = require("./iso.js");

function invalid(field, expected, given, cause) {
  const message = `${field} must be ${expected}; got ${given}`;
  return new SessionStoreError("ERR_INVALID_SESSION", message, cause && { cause });
}

const USER = "a JSON value other than null";
const SESSION = "an object that JSON.stringify can write";

// March 1973. A smaller number is probably in seconds, or a duration.
const FIRST_MILLIS = 1e11;

/** Returns the fields of a session, and their order, if it has exactly those of FluidAuth. Otherwise returns `null`. */
function readPlain(session) {
  try {
    if (session === null || typeof session !== "object") return null;
    // Another prototype, or a hidden or inherited `toJSON`, may change the JSON form.
    if (Object.getPrototypeOf(session) !== Object.prototype || session.toJSON !== undefined) return null;
    const keys = Object.keys(session);
    if (keys.length !== 3 || keys[0] !== "sessionId") return null;
    const userFirst = keys[1] === "userId" && keys[2] === "expires";
    if (!userFirst && !(keys[1] === "expires" && keys[2] === "userId")) return null;
    const { sessionId, userId, expires } = session;
    // A `String` object becomes a string in JSON.
    return typeof sessionId === "string" ? { sessionId, userId, expires, userFirst } : null;
  } catch (cause) {
    throw invalid("session", SESSION, "an object that throws when it is read", cause);
  }
}

/** Returns the JSON text of the value of `field`. */
function toJson(field, expected, value) {
  let json;
  try {
    json = JSON.stringify(value);
  } catch (cause) {
    // Its message may contain session data.
    throw invalid(field, expected, describeRefusal(value, cause), cause);
  }
  if (json === undefined) throw invalid(field, expected, kindOf(value));
  return json;
}

/** Describes why `JSON.stringify` threw, and names the field if every session has it. Never shows content. */
function describeRefusal(value, cause) {
  if (typeof value === "bigint") return "a BigInt";
  const field = fieldOf(value);
  const place = field === undefined ? "" : ` in ${field}`;
  if (cause instanceof TypeError && /BigInt/.test(cause.message)) return `a BigInt${place}`;
  if (cause instanceof TypeError && /circular|cyclic/i.test(cause.message))
    return `a circular object${place}`;
  return `an object that throws when it is read${place}`;
}

// Other field names may be content.
const fieldOf = (value) => ["sessionId", "userId", "expires"].find((name) => !isJson(() => value[name]));

function isJson(read) {
  try {
    JSON.stringify(read());
    return true;
  } catch {
    return false;
  }
}

function sessionToJson(session) {
  if (session === null || typeof session !== "object" || Array.isArray(session)) {
    throw invalid("session", "an object", kindOf(session));
  }
  const json = toJson("session", SESSION, session);
  if (isTooEarly(session.expires)) throw tooEarly(session.expires);
  return json;
}

/** Whether a number cannot be a current time in milliseconds. Tests may have set the clock to 1970. */
const isTooEarly = (expires) =>
  typeof expires === "number" && expires > 0 && expires < FIRST_MILLIS && Date.now() >= FIRST_MILLIS;

function tooEarly(expires) {
  const time = `${expires}, which is ${new Date(expires).toISOString()}`;
  const hint = "multiply seconds by 1000, add a duration to Date.now()";
  return invalid("expires", "a Date, its text or milliseconds since 1970", `${time}: ${hint}`);
}

function userToJson(userId) {
  if (userId === null) throw invalid("userId", USER, "null");
  return toJson("userId", USER, userId);
}

/** Returns the time of `expires` in a session's JSON text. */
function expiresOf(json) {
  return new Date(JSON.parse(json).expires).getTime();
}

/** Converts any value that `new Date` accepts to milliseconds. */
function toMillis(expires) {
  const isDate = typeof expires === "object" && types.isDate(expires);
  if (!isDate && typeof expires !== "string" && typeof expires !== "number") {
    throw invalid("expires", "anything that new Date(expires) makes a valid date", kindOf(expires));
  }
  if (isTooEarly(expires)) throw tooEarly(expires);
  return new Date(expires).getTime();
}

/** Parses a JSON object. On a server any client may have written it. */
function parseObject(json) {
  let session;
  try {
    session = JSON.parse(json);
  } catch {
    // Drop the error: the parser's message shows a part of the text.
  }
  if (session !== null && typeof session === "object") return session;
  throw new SessionStoreError(
    "ERR_STORE_CORRUPT",
    "a stored session is damaged, or was written by something else",
  );
}

/** Decodes a native reply. `src/binding/reply.rs` lists its forms. */
function decode(sessionId, reply) {
  switch (reply.charCodeAt(0)) {
    case 101: // e
      return { sessionId, expires: reply.slice(1, 25), userId: reply.slice(25) };
    case 117: // u
      return { sessionId, userId: reply.slice(25), expires: reply.slice(1, 25) };
    case 123: // {
      return parseObject(reply);
    case 69: // E
      return { sessionId, expires: reply.slice(1, 28), userId: reply.slice(28) };
    case 85: // U
      return { sessionId, userId: reply.slice(28), expires: reply.slice(1, 28) };
    default:
      return decodeMoved(reply);
  }
}

function decodeMoved(reply) {
  const start = reply.indexOf("{");
  const millis = Number(reply.slice(1, start));
  const session = parseObject(reply.slice(start));
  session.expires = reply[0] === "N" ? millis : isoOf(millis);
  return session;
}

module.exports = {
  readPlain,
  sessionToJson,
  userToJson,
  expiresOf,
  toMillis,
  decode,
};
