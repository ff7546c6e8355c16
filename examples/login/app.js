"use strict";

const path = require("node:path");
const cookieParser = require("cookie-parser");
const express = require("express");
const { createAuth } = require("./auth");
const { messagePage } = require("./pages");
const { accountRoutes, loginRoutes } = require("./routes");
const { findUser } = require("./users");

function securityHeaders(_req, res, next) {
  res.set({
    "Content-Security-Policy":
      "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
  });
  next();
}

// A back button must not show an account that was logged out.
function neverCached(_req, res, next) {
  res.set("Cache-Control", "no-store");
  next();
}

// The cookie is SameSite=Strict already; this keeps other sites from logging a visitor in as someone else.
function refuseCrossSitePosts(req, res, next) {
  const from = req.headers["sec-fetch-site"];
  if (req.method !== "POST" || !from || from === "same-origin" || from === "none") return next();
  res.status(403).send(String(messagePage("Refused", "This form was sent from another site.")));
}

function notFound(_req, res) {
  res.status(404).send(String(messagePage("Page not found", "There is nothing at this address.")));
}

// Express knows an error handler by its four parameters.
function reportError(error, _req, res, next) {
  const status = error.status >= 400 && error.status < 500 ? error.status : 500;
  if (status === 500) console.error(error);
  if (res.headersSent) return next(error);
  const page =
    status === 500
      ? messagePage("Something went wrong", "The fault is ours. Please try again later.")
      : messagePage("Bad request", "The server did not understand this request.");
  res.status(status).send(String(page));
}

/** The whole app over a `DeviceStore`. */
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
  app.use(securityHeaders);
  app.get("/style.css", (_req, res) => res.sendFile(path.join(__dirname, "style.css")));
  app.use(neverCached, refuseCrossSitePosts);
  app.use(cookieParser(), express.urlencoded({ extended: false }));
  app.use(store.trackRequests(), ...auth.middleware);
  app.use(loginRoutes({ store, auth, demoLogins }), accountRoutes({ store, auth }));
  app.use(notFound, reportError);
  return app;
}

module.exports = { createApp };
