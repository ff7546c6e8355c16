"use strict";

const { Marked } = require("./marks.js");

// @fastify/session copies the session that a store loads. Since 11.1.2 it copies the cookie with `{ ...cookie.toJSON()
// }` and keeps the copy under a symbol, so a mark on the cookie survives.
const MARK = Symbol("mark");

const classes = new WeakMap();

const isFastifySession = (session) => typeof session.isModified === "function";

/** Adds the mark when @fastify/session calls it. `JSON.stringify` passes a key, @fastify/session does not. */
function toJSON(key) {
  const mark = Marked.get(this);
  if (key !== undefined || mark === undefined) return this;
  mark.isCarried = true;
  return { ...this, [MARK]: mark };
}

/**
 * Makes the copy of a loaded cookie carry its mark, which records that. It is invisible to all others, even to
 * `deepStrictEqual`.
 */
function carryMark(cookie) {
  if (Object.hasOwn(cookie, "toJSON")) return;
  Object.defineProperty(cookie, "toJSON", { value: toJSON, configurable: true, writable: true });
}

/** Returns the mark that a session of @fastify/session carries, or `undefined`. */
function carriedMark(session) {
  if (!isFastifySession(session)) return undefined;
  for (const key of Object.getOwnPropertySymbols(session)) {
    const mark = session[key]?.[MARK];
    if (mark !== undefined) return mark;
  }
  return undefined;
}

/** Whether sessions of this class carry marks. If so, a session without a mark was not loaded. */
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
 * Reconstructs the cookie with which @fastify/session before 11.1.2 loaded a session. The session does not say when it
 * was loaded, so this returns `undefined` if another request may have extended it.
 */
function loadedCookie({ cookie }) {
  const { originalExpires: expires, originalMaxAge } = cookie ?? {};
  const now = Date.now();
  if (!expires || (originalMaxAge && new Date(expires) > now + originalMaxAge)) return undefined;
  return { cookie: { expires, originalMaxAge }, expires, at: now };
}

module.exports = { carryMark, carriedMark, carriesMarks, isFastifySession, loadedCookie };
