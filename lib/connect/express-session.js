"use strict";

/**
 * Takes the classes of express-session from a session that it has generated. A `require` would fail in a bundle, and in
 * a package that is linked into `node_modules`.
 */
function classesOf({ constructor: Session, cookie }) {
  return { Session, cookiePrototype: Object.getPrototypeOf(cookie) };
}

/** Creates a cookie of express-session from the stored one. */
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
  // Restore it, because the setter of `expires` computed it from the clock.
  cookie.originalMaxAge = originalMaxAge;
  return cookie;
}

/** Turns a loaded session into the session of a request. */
function reviveSession({ Session, cookiePrototype }, req, loaded) {
  loaded.cookie = reviveCookie(cookiePrototype, loaded.cookie);
  req.session = new Session(req, loaded);
  return req.session;
}

module.exports = { classesOf, reviveSession };
