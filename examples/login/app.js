"use strict";

const cookieParser = require("cookie-parser");
const express = require("express");
const { beforeSession, forOperators, notFound, reportError } = require("../shared/express");
const { findUser } = require("../shared/users");
const { createAuth } = require("./auth");
const { accountRoutes, loginRoutes } = require("./routes");

/** Creates the app on a store from `withDevices`. */
function createApp({ store, secret, sessionDuration = 30 * 60_000, demoLogins = [] }) {
  const auth = createAuth({
    store,
    secret,
    duration: sessionDuration,
    serializeUser: (user) => user.id,
    deserializeUser: async (id) => findUser(id),
  });
  const app = express();
  app.disable("x-powered-by");
  app.locals.authName = auth.name;
  app.use(beforeSession(), forOperators(store));
  app.use(cookieParser(), express.urlencoded({ extended: false }));
  app.use(store.trackRequests(), ...auth.middleware);
  app.use(loginRoutes({ store, auth, demoLogins }), accountRoutes({ store, auth }));
  app.use(notFound, reportError);
  return app;
}

module.exports = { createApp };
