"use strict";

const { Marked } = require("./marks.js");

// @fastify/session makes a session of its own of the one that a store loads. From 11.1.2 on it copies the cookie with
// `{ ...cookie.toJSON() }` and keeps the copy under a symbol, so that a mark on the cookie comes along.
const MARK = Symbol("mark");

const classes = new WeakMap();

const isFastifySession = (session) => typeof session.isModified === "function";

/** `JSON.stringify` passes a key, @fastify/session does not. */
function toJSON(key) {
  const mark = Marked.get(this);
  if (key !== undefined || mark === undefined) return this;
  mark.isCarried = true;
  return { ...this, [MARK]: mark };
}

/**
 * Makes the mark of a loaded cookie come along, which then notes that it is carried. Nobody else sees it, nor does
 * `deepStrictEqual`.
 */
function carryMark(cookie) {
  if (Object.hasOwn(cookie, "toJSON")) return;
  Object.defineProperty(cookie, "toJSON", { value: toJSON, configurable: true, writable: true });
}

/** The mark that came along with a session of @fastify/session, if there is one. */
function carriedMark(session) {
  if (!isFastifySession(session)) return undefined;
  for (const key of Object.getOwnPropertySymbols(session)) {
    const mark = session[key]?.[MARK];
    if (mark !== undefined) return mark;
  }
  return undefined;
}

/** Whether marks come along to sessions of this class, so that a session without one has not been loaded. */
function carriesMarks(session) {
  if (!isFastifySession(session)) return false;
  const Session = Object.getPrototypeOf(session)?.constructor;
  if (typeof Session !== "function") return false;
  if (!classes.has(Session)) classes.set(Session, tryToCarry(Session));
  return classes.get(Session);
}

function tryToCarry(Session) {
  const cookie = {};
  Marked.set(cookie, {});
  carryMark(cookie);
  try {
    const session = new Session(null, {}, () => "", {}, { sign: String }, { cookie }, "an id");
    return carriedMark(session) === Marked.get(cookie);
  } catch {
    return false;
  }
}

/**
 * The cookie that a session of @fastify/session before 11.1.2 was loaded with, as far as the session says.
 * It does not say when it was loaded. So this gives nothing where another request may have prolonged the session.
 */
function loadedCookie({ cookie }) {
  const { originalExpires: expires, originalMaxAge } = cookie ?? {};
  const now = Date.now();
  if (!expires || (originalMaxAge && new Date(expires) > now + originalMaxAge)) return undefined;
  return { cookie: { expires, originalMaxAge }, expires, at: now };
}

module.exports = { carryMark, carriedMark, carriesMarks, isFastifySession, loadedCookie };
