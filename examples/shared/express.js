"use strict";

const path = require("node:path");
const { Router } = require("express");
const { isCrossSitePost, SECURITY_HEADERS } = require("./http");
const { operations } = require("./operations");
const { errorPage, notFoundPage, refusedPage } = require("./pages");

// Express 4 ignores the promise of a handler.
const handle = (handler) => (req, res, next) => handler(req, res).catch(next);

function securityHeaders(_req, res, next) {
  res.set(SECURITY_HEADERS);
  next();
}

// The back button must not show the account after a logout.
function neverCached(_req, res, next) {
  res.set("Cache-Control", "no-store");
  next();
}

function refuseCrossSitePosts(req, res, next) {
  if (!isCrossSitePost(req)) return next();
  res.status(403).send(String(refusedPage()));
}

/** Middleware for every request, before the session layer. */
function beforeSession() {
  const router = Router();
  router.use(securityHeaders);
  router.get("/style.css", (_req, res) => res.sendFile(path.join(__dirname, "style.css")));
  router.use(neverCached, refuseCrossSitePosts);
  return router;
}

/** Routes `/healthz` and `/metrics` of a store. */
function forOperators(store) {
  const router = Router();
  for (const [path, answer] of Object.entries(operations(store))) {
    router.get(
      path,
      handle(async (_req, res) => {
        const { status, type, text } = await answer();
        res.status(status).type(type).send(text);
      }),
    );
  }
  return router;
}

function notFound(_req, res) {
  res.status(404).send(String(notFoundPage()));
}

// Express recognizes an error handler by its four parameters.
function reportError(error, _req, res, next) {
  const status = error.status >= 400 && error.status < 500 ? error.status : 500;
  if (status === 500) console.error(error);
  if (res.headersSent) return next(error);
  res.status(status).send(String(errorPage(status)));
}

module.exports = { beforeSession, forOperators, handle, notFound, reportError };
