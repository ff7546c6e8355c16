"use strict";

const express = require("express");
const session = require("express-session");
const { beforeSession, forOperators, notFound, reportError } = require("../shared/express");
const { TRUSTED_PROXIES } = require("../shared/http");
const { COOKIE_NAME, createPassport } = require("./auth");
const { accountRoutes, loginRoutes } = require("./routes");

/** Creates the app on a `ConnectStore`. */
function createApp({ store, secret, demoLogins = [] }) {
  const isProduction = process.env.NODE_ENV === "production";
  const passport = createPassport();
  const app = express();
  app.disable("x-powered-by");
  // In production a proxy terminates HTTPS. Without this, express-session would not send a Secure cookie.
  app.set("trust proxy", isProduction ? TRUSTED_PROXIES : false);
  app.use(beforeSession(), forOperators(store.store));
  app.use(
    session({
      store,
      secret,
      name: COOKIE_NAME,
      cookie: { httpOnly: true, sameSite: "strict", secure: isProduction },
      resave: false,
      saveUninitialized: false,
      // The cookie of a remembered visitor lasts as long as the session, which every visit extends.
      rolling: true,
    }),
    passport.session(),
    express.urlencoded({ extended: false }),
  );
  app.use(loginRoutes({ passport, demoLogins }), accountRoutes({ store }));
  app.use(notFound, reportError);
  return app;
}

module.exports = { createApp };
