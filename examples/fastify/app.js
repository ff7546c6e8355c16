"use strict";

const fs = require("node:fs");
const path = require("node:path");
const fastifyCookie = require("@fastify/cookie");
const fastifyFormbody = require("@fastify/formbody");
const fastifySession = require("@fastify/session");
const fastify = require("fastify");
const { isCrossSitePost, TRUSTED_PROXIES } = require("../shared/http");
const { operations } = require("../shared/operations");
const { errorPage, notFoundPage, refusedPage } = require("../shared/pages");
const { findUser } = require("../shared/users");
const { COOKIE_NAME } = require("./auth");
const { accountRoutes, loginRoutes } = require("./routes");
const { sendPage } = require("./send-page");

const STYLE = fs.readFileSync(path.join(__dirname, "../shared/style.css"));

async function refuseCrossSitePosts(request, reply) {
  if (isCrossSitePost(request)) return sendPage(reply.code(403), refusedPage());
}

function reportError(error, request, reply) {
  // Do not save the session with the error page: saving it may be what failed.
  request.session = null;
  const status = error.statusCode >= 400 && error.statusCode < 500 ? error.statusCode : 500;
  if (status === 500) console.error(error);
  return sendPage(reply.code(status), errorPage(status));
}

async function findRequestUser(request) {
  request.user = findUser(request.session.userId);
}

/** The routes that have a session. */
async function withSession(app, { store, secret, isProduction, demoLogins }) {
  app.register(fastifyCookie);
  app.register(fastifySession, {
    store,
    secret,
    cookieName: COOKIE_NAME,
    cookie: { httpOnly: true, sameSite: "strict", secure: isProduction },
    saveUninitialized: false,
  });
  app.register(fastifyFormbody);
  app.decorateRequest("user", null);
  app.addHook("preHandler", findRequestUser);
  app.register(loginRoutes, { demoLogins });
  app.register(accountRoutes, { store });
}

/** Creates the app on a `ConnectStore`. */
function createApp({ store, secret, demoLogins = [] }) {
  const isProduction = process.env.NODE_ENV === "production";
  // In production a proxy terminates HTTPS. Without this, @fastify/session would not send a Secure cookie.
  const app = fastify({ trustProxy: isProduction ? TRUSTED_PROXIES : false, frameworkErrors: reportError });
  app.addHook("onRequest", refuseCrossSitePosts);
  app.setErrorHandler(reportError);
  app.setNotFoundHandler((_request, reply) => sendPage(reply.code(404), notFoundPage()));
  app.get("/style.css", (_request, reply) => reply.type("text/css").send(STYLE));
  for (const [path, answer] of Object.entries(operations(store.store))) {
    app.get(path, async (_request, reply) => {
      const { status, type, text } = await answer();
      return reply.code(status).type(type).send(text);
    });
  }
  app.register(withSession, { store, secret, isProduction, demoLogins });
  return app;
}

module.exports = { createApp };
