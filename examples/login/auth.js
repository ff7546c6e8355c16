"use strict";

const { guardSession } = require("@fluidauth/native-store");
const { CookieSession } = require("./session");

// Cookies ignore ports: a unique name separates this app from others on localhost.
const COOKIE_NAME = "login-example-session";

function isInstalled(name) {
  try {
    require.resolve(name);
    return true;
  } catch {
    return false;
  }
}

function fluidAuth({ store, secret, duration, serializeUser, deserializeUser }) {
  const { AuthService, Session } = require("@fluidauth/express");
  const config = { store, secret, name: COOKIE_NAME, sessionDuration: duration };
  const session = guardSession(new Session({ ...config, extendSessionBeforeExpiry: true }));
  const service = new AuthService({ providers: [], session });
  service.serializeUser(serializeUser);
  service.deserializeUser(deserializeUser);
  return {
    name: "FluidAuth",
    middleware: [service.session(), service.initialize()],
    login: (req, _res, user) => req.login(user),
    logout: (req, _res) => req.logout(),
  };
}

function ownSession(options) {
  const session = new CookieSession({ ...options, name: COOKIE_NAME });
  return {
    name: "the example's own session layer (FluidAuth is not installed)",
    middleware: [session.manage()],
    login: (req, _res, user) => req.session.create(user),
    logout: (req, _res) => req.session.destroy(),
  };
}

/** Returns FluidAuth if it is installed, otherwise a stand-in with the same interface. */
function createAuth(options) {
  return isInstalled("@fluidauth/express") ? fluidAuth(options) : ownSession(options);
}

module.exports = { createAuth };
