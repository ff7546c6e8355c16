"use strict";

const { promisify } = require("node:util");
const { Passport } = require("passport");
const { Strategy: LocalStrategy } = require("passport-local");
const { deviceName } = require("../shared/device");
const { text } = require("../shared/http");
const { authenticate, findUser } = require("../shared/users");

// Cookies ignore ports: a unique name separates this app from others on localhost.
const COOKIE_NAME = "passport-example-session";
const REMEMBERED = 30 * 24 * 60 * 60_000;

function createPassport() {
  const passport = new Passport();
  passport.use(
    new LocalStrategy({ usernameField: "email" }, (email, password, done) => {
      authenticate(text(email), text(password)).then((user) => done(null, user), done);
    }),
  );
  // Called between the new session and its first save, so fields that are added here need no second save.
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

/** Resolves to the user with the email and password of the form, or to `null`. */
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
 * Logs a user in on a new session, and saves it. The browser's previous session ends. Without `keepSessionInfo`, none
 * of its data is kept, so nothing of a previous user leaks.
 */
async function logIn(req, user) {
  await promisify(req.login).call(req, user);
}

/** Await it: express-session sends most of a response before it saves, so a redirect could overtake the save. */
async function saveSession(req) {
  await promisify(req.session.save).call(req.session);
}

/** Ends the session. `req.logout()` would continue with a new, empty session, and store that. */
async function logOut(req, res) {
  await promisify(req.session.destroy).call(req.session);
  res.clearCookie(COOKIE_NAME);
}

module.exports = { COOKIE_NAME, checkPassword, createPassport, logIn, logOut, saveSession };
