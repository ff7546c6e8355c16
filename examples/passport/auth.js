"use strict";

const { promisify } = require("node:util");
const { Passport } = require("passport");
const { Strategy: LocalStrategy } = require("passport-local");
const { deviceName } = require("../shared/device");
const { text } = require("../shared/http");
const { authenticate, findUser } = require("../shared/users");

// Cookies do not know ports: a name of its own keeps this app apart from others on localhost.
const COOKIE_NAME = "passport-example-session";
const REMEMBERED = 30 * 24 * 60 * 60_000;

function createPassport() {
  const passport = new Passport();
  passport.use(
    new LocalStrategy({ usernameField: "email" }, (email, password, done) => {
      authenticate(text(email), text(password)).then((user) => done(null, user), done);
    }),
  );
  // Called between the new session and its first save: what is added here needs no second one.
  passport.serializeUser((req, user, done) => {
    const { session } = req;
    session.device = deviceName(req.headers["user-agent"]);
    session.since = new Date().toISOString();
    if (text(req.body.remember)) session.cookie.maxAge = REMEMBERED;
    done(null, user.id);
  });
  passport.deserializeUser((id, done) => done(null, findUser(id)));
  return passport;
}

/** The user whose email and password the form has, or `null`. */
function checkPassword(passport, req, res) {
  return new Promise((resolve, reject) => {
    const check = passport.authenticate("local", (error, user) => {
      if (error) return reject(error);
      resolve(user || null);
    });
    check(req, res, reject);
  });
}

/**
 * Logs a user in on a new session, which is saved. That which the browser had ends, with all that was in it: without
 * `keepSessionInfo`, nothing of the last user is left to this one.
 */
async function logIn(req, user) {
  await promisify(req.login).call(req, user);
}

/** Awaited, as express-session itself sends most of an answer before it saves: a redirect could overtake it. */
async function saveSession(req) {
  await promisify(req.session.save).call(req.session);
}

/** Ends the session. `req.logout()` would go on with a new and empty one, and store that. */
async function logOut(req, res) {
  await promisify(req.session.destroy).call(req.session);
  res.clearCookie(COOKIE_NAME);
}

module.exports = { COOKIE_NAME, checkPassword, createPassport, logIn, logOut, saveSession };
