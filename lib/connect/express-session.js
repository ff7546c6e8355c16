"use strict";

/**
 * The classes of express-session, taken from a session that it has generated. To look the module up would fail in a
 * bundle, and in a package that is linked into `node_modules`.
 */
function classesOf({ constructor: Session, cookie }) {
  return { Session, cookiePrototype: Object.getPrototypeOf(cookie) };
}

/** A cookie as express-session has it, from the stored one. */
function reviveCookie(prototype, stored) {
  const { expires, originalMaxAge } = stored;
  const cookie = Object.create(prototype);
  cookie.path = "/";
  cookie.httpOnly = true;
  cookie.expires = typeof expires === "string" ? new Date(expires) : (expires ?? null);
  for (const name of Object.keys(stored)) {
    // `data` is a getter.
    if (name !== "expires" && name !== "data") cookie[name] = stored[name];
  }
  // The setter of `expires` has computed it from the clock.
  cookie.originalMaxAge = originalMaxAge;
  return cookie;
}

/** Makes a loaded session the session of a request. */
function reviveSession({ Session, cookiePrototype }, req, loaded) {
  loaded.cookie = reviveCookie(cookiePrototype, loaded.cookie);
  req.session = new Session(req, loaded);
  return req.session;
}

module.exports = { classesOf, reviveSession };
