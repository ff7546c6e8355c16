"use strict";

/**
 * The classes of express-session, taken from a session that it has generated. To look the module up would fail in a
 * bundle, and in a package that is linked into `node_modules`.
 */
function classesOf({ constructor: Session, cookie }) {
  return { Session, cookiePrototype: Object.getPrototypeOf(cookie) };
}

/** A cookie as express-session has it, from the stored one. */
function reviveCookie(prototype, { data: _, ...stored }) {
  const cookie = Object.assign(
    Object.create(prototype),
    { path: "/", httpOnly: true, expires: null },
    stored,
  );
  if (typeof stored.expires === "string") cookie.expires = new Date(stored.expires);
  // The setter of `expires` has computed it from the clock.
  cookie.originalMaxAge = stored.originalMaxAge;
  return cookie;
}

/** Makes a loaded session the session of a request. */
function reviveSession({ Session, cookiePrototype }, req, loaded) {
  loaded.cookie = reviveCookie(cookiePrototype, loaded.cookie);
  req.session = new Session(req, loaded);
  return req.session;
}

module.exports = { classesOf, reviveSession };
