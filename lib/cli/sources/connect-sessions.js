"use strict";

const { wrongUsage } = require("../failures.js");
const { Fault } = require("./fault.js");

const LONGEST_ID = 256;
const LAST_TIME = 8.64e15;
// Milliseconds. express-session and its stores read the clock at slightly different times.
const DRIFT = 1000;

const ENCRYPTED = "encrypted, which import cannot undo";

/** Converts sessions of other express-session stores to the record of ConnectStore: see `lib/connect/record.js`. */
class ConnectSessions {
  #prefix;
  #userField;

  constructor({ prefix = "", "user-field": userField }) {
    this.#prefix = prefix;
    this.#userField = userField === undefined ? undefined : parseField(userField);
  }

  /**
   * Returns the session of an entry.
   * @param {string} text The session as JSON.
   * @param {(session: object) => number} endOf Returns when the old store would end it.
   */
  read(sid, text, endOf) {
    const sessionId = this.#idOf(sid);
    const session = parseSession(text);
    const expires = expiryOf(session.cookie, endOf(session));
    const record = { sessionId, expires, userId: this.#userOf(session), session };
    return { session: record, bytes: text.length };
  }

  #idOf(sid) {
    const id = this.#prefix + sid;
    const isId = typeof sid === "string" && sid !== "" && id.isWellFormed();
    if (!isId || Buffer.byteLength(id) > LONGEST_ID) {
      throw new Fault(`with an invalid id: 1 to ${LONGEST_ID} bytes are accepted, prefix included`);
    }
    return id;
  }

  #userOf(session) {
    if (this.#userField === undefined) return undefined;
    let value = session;
    for (const name of this.#userField) {
      if (value === null || typeof value !== "object" || !Object.hasOwn(value, name)) return undefined;
      value = value[name];
    }
    return value ?? undefined;
  }
}

/**
 * Returns the end in the old store, because some stores move only that. If it equals the cookie's end, returns the
 * cookie's: ConnectStore gives the cookie the end of the record.
 */
function expiryOf(cookie, end) {
  if (!(typeof end === "number" && Math.abs(end) <= LAST_TIME)) throw new Fault("without an end time");
  const ofCookie = typeof cookie.expires === "string" ? Date.parse(cookie.expires) : Number.NaN;
  return new Date(Math.abs(ofCookie - end) <= DRIFT ? ofCookie : end).toISOString();
}

/** Parses a session. Throws if express-session could not use it: it reads the cookie of every session. */
function parseSession(text) {
  if (typeof text !== "string") throw new Fault("not text");
  let session;
  try {
    session = JSON.parse(text);
  } catch {
    // Drop the error: its message shows a part of the session.
    throw new Fault("not JSON");
  }
  if (!isObject(session)) throw new Fault("not a JSON object");
  if (isEncrypted(session)) throw new Fault(ENCRYPTED);
  if (!isObject(session.cookie)) throw new Fault("without a cookie");
  return session;
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

/** Whether kruptein encrypted it, which session-file-store and connect-mongo use. */
const isEncrypted = ({ ct, hmac, cookie }) =>
  typeof ct === "string" && typeof hmac === "string" && cookie === undefined;

function parseField(text) {
  const names = text.split(".");
  if (names.includes("")) {
    throw wrongUsage(
      `--user-field must be names with dots between them, such as passport.user; got ${JSON.stringify(text)}`,
    );
  }
  return names;
}

module.exports = { ConnectSessions, ENCRYPTED };
