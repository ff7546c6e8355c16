"use strict";

const { callOutside } = require("./callbacks.js");
const { invalidOption, kindOf, misuse } = require("./errors.js");
const { isPossibleId } = require("./session-id.js");

// A registered symbol, so that two copies of this package do not both wrap a session.
const GUARDED = Symbol.for("@fluidauth/native-store.guarded");

function guardSession(session) {
  assertSession(session);
  if (session[GUARDED]) return session;

  const manage = session.manageSession;
  const destroy = session.destroySession;
  const decryptingOnce = rememberDecryption(session);
  const passes = new WeakMap();

  async function end(req, res) {
    if (hasGarbageCookie(session, req)) {
      dropCookie(session, req, res);
      return signOut(req);
    }
    try {
      await destroy.call(session, req, withScopedClear(session, res));
    } catch (error) {
      // The response was sent while the store deleted the session. Only the cookie remains.
      if (error?.code !== "ERR_HTTP_HEADERS_SENT") throw error;
      signOut(req);
    }
  }

  define(session, "destroySession", (req, res) => {
    const ending = end(req, res);
    return passes.get(req)?.adopt(ending) ?? ending;
  });

  define(session, "manageSession", async (req, res, next) => {
    const pass = new Pass(next, () => passes.delete(req));
    passes.set(req, pass);
    try {
      await decryptingOnce(() => {
        if (hasGarbageCookie(session, req)) dropCookie(session, req, res);
        return manage.call(session, req, res, pass.record);
      });
    } catch (error) {
      pass.record(isForWantOfCookies(error, req) ? withoutCookies(error) : orUnknown(error));
    }
    await pass.settle();
  });

  define(session, GUARDED, true);
  return session;
}

/** One request in `manageSession`: the argument of FluidAuth's `next`, and the calls that it did not await. */
class Pass {
  #next;
  #release;
  #endings = [];
  #error;
  #endingError;
  #called = false;
  #settled = false;

  constructor(next, release) {
    this.#next = next;
    this.#release = release;
  }

  record = (error) => {
    this.#error ||= error;
    const isLate = this.#settled && !this.#called;
    this.#called = true;
    if (isLate) this.#leave();
  };

  /** Tracks a call that FluidAuth may not await. Otherwise the error that made it end the session would be lost. */
  adopt(ending) {
    const quiet = ending.catch((error) => {
      this.#endingError ??= orUnknown(error);
    });
    this.#endings.push(quiet);
    return quiet;
  }

  /** Runs after `manageSession`. If that has not called `next`, it has answered, or calls it later. */
  async settle() {
    this.#settled = true;
    if (this.#called) await this.#leave();
  }

  async #leave() {
    await Promise.all(this.#endings);
    this.#release();
    const error = this.#error || this.#endingError;
    // If `next` throws, the promise of `manageSession` must not reject: Express 5 would call `next` again.
    if (error) callOutside(this.#next, error);
    else callOutside(this.#next);
  }
}

/**
 * FluidAuth decrypts the cookie that the guard has just decrypted. Returns a function that avoids the second
 * decryption, but only while `run` is on the stack: a request never gets the result for another request's cookie.
 */
function rememberDecryption(session) {
  const decrypt = session.decryptSessionId;
  if (typeof decrypt !== "function") return (run) => run();
  let isOpen = false;
  let last = null;

  define(session, "decryptSessionId", (cookie) => {
    if (last?.cookie === cookie) return last.id;
    const id = decrypt.call(session, cookie);
    if (isOpen) last = { cookie, id };
    return id;
  });
  return (run) => {
    isOpen = true;
    try {
      return run();
    } finally {
      isOpen = false;
      last = null;
    }
  };
}

/** Whether FluidAuth cannot decrypt the cookie, or it decrypts to an invalid session id by chance. */
function hasGarbageCookie(session, req) {
  const cookie = req.cookies?.[session.sessionInfo.name];
  if (!cookie || typeof session.decryptSessionId !== "function") return false;
  if (typeof cookie !== "string") return true; // cookie-parser parses `j:` cookies to objects
  try {
    return !mayBeId(session.decryptSessionId(cookie));
  } catch {
    return true;
  }
}

function mayBeId(id) {
  if (typeof id !== "string") {
    // The method is private to FluidAuth. If another version makes it async, a check would log out every user.
    Promise.resolve(id).catch(() => {});
    return true;
  }
  return isPossibleId(id);
}

/** Whether `req.cookies` is missing. FluidAuth 1.1 reads it, another version may parse the cookies itself. */
const isForWantOfCookies = (error, req) => req.cookies === undefined && error instanceof TypeError;

function withoutCookies(cause) {
  return misuse(
    "req.cookies is missing: app.use(cookieParser()), of cookie-parser, must come before app.use(auth.session())",
    { cause },
  );
}

function dropCookie(session, req, res) {
  const { name } = session.sessionInfo;
  if (!res.headersSent) res.clearCookie(name, cookieScope(session));
  delete req.cookies[name];
}

/** Adds path and domain when FluidAuth clears its cookie. Without them a browser keeps it. */
function withScopedClear(session, res) {
  return new Proxy(res, {
    get(target, key) {
      if (key !== "clearCookie") return Reflect.get(target, key);
      return (name, options) => {
        const isOurs = name === session.sessionInfo.name;
        return target.clearCookie(name, isOurs ? { ...cookieScope(session), ...options } : options);
      };
    },
  });
}

function cookieScope(session) {
  const { maxAge, expires, signed, encode, ...scope } = session.cookieOption ?? {};
  return scope;
}

function signOut(req) {
  req.user = null;
  if (req.session) req.session.user = null;
}

/** `next` treats a falsy value as success. */
function orUnknown(error) {
  return error || new Error(`FluidAuth's session failed with ${error}`);
}

/** Like a method of a class: replaceable, and not enumerable. */
function define(session, key, value) {
  Object.defineProperty(session, key, { value, configurable: true, writable: true });
}

function assertSession(session) {
  const fault = faultOf(session);
  if (fault) throw misuse(`session must be a FluidAuth Session, got ${fault}`);
  // FluidAuth only logs that such a store has no `clean`. The first login would fail.
  if (isForConnect(session.store)) {
    const given = `one for express-session, ${session.store.constructor?.name}`;
    throw invalidOption("store of the Session", "one for FluidAuth, such as new FileStore({ path })", given);
  }
}

/** Whether a store has the methods of express-session's stores, and not those that FluidAuth calls. */
function isForConnect(store) {
  return typeof store?.set === "function" && typeof store.create !== "function";
}

function faultOf(session) {
  const kind = kindOf(session);
  if (typeof session !== "object" || session === null) return kind;
  for (const method of ["manageSession", "destroySession"]) {
    if (typeof session[method] !== "function") return `${kind} without the method ${method}`;
  }
  if (typeof session.sessionInfo?.name !== "string") return `${kind} without sessionInfo.name`;
  return null;
}

module.exports = { guardSession };
