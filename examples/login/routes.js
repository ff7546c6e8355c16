"use strict";

const { Router } = require("express");
const { handle } = require("../shared/express");
const { text } = require("../shared/http");
const { accountPage, loginPage } = require("../shared/pages");
const { sessionHandle } = require("../shared/session-handle");
const { authenticate } = require("../shared/users");

function loginRoutes({ store, auth, demoLogins }) {
  const router = Router();

  router.get("/login", (req, res) => {
    if (req.user) return res.redirect("/");
    res.send(String(loginPage({ noticeKey: text(req.query.notice), demoLogins })));
  });

  router.post(
    "/login",
    handle(async (req, res) => {
      const email = text(req.body.email);
      const user = await authenticate(email, text(req.body.password));
      if (!user) {
        const error = "Email or password is wrong.";
        return res.status(401).send(String(loginPage({ email, error, demoLogins })));
      }
      // The browser drops its previous session here, so end that session too.
      if (store.currentSessionId) await store.delete(store.currentSessionId);
      await auth.login(req, res, user);
      res.redirect(303, "/");
    }),
  );

  router.post(
    "/logout",
    handle(async (req, res) => {
      await auth.logout(req, res);
      res.redirect(303, "/login?notice=logged-out");
    }),
  );

  return router;
}

function requireUser(req, res, next) {
  if (req.user) return next();
  res.redirect(303, "/login");
}

function accountRoutes({ store, auth }) {
  const router = Router();

  router.get(
    "/",
    requireUser,
    handle(async (req, res) => {
      const sessions = (await store.getByUser(req.user.id)).map((session) => ({
        ...session,
        handle: sessionHandle(session.sessionId),
        isCurrent: session.sessionId === store.currentSessionId,
      }));
      sessions.sort((a, b) => b.isCurrent - a.isCurrent);
      res.send(String(accountPage({ user: req.user, sessions, noticeKey: text(req.query.notice) })));
    }),
  );

  router.post(
    "/sessions/revoke",
    requireUser,
    handle(async (req, res) => {
      const sessions = await store.getByUser(req.user.id);
      const session = sessions.find(({ sessionId }) => sessionHandle(sessionId) === req.body.session);
      if (session?.sessionId === store.currentSessionId) {
        await auth.logout(req, res);
        return res.redirect(303, "/login?notice=logged-out");
      }
      // If it is gone already, there is nothing to do.
      if (session) await store.delete(session.sessionId);
      res.redirect(303, "/?notice=session-ended");
    }),
  );

  router.post(
    "/sessions/revoke-others",
    requireUser,
    handle(async (req, res) => {
      await store.deleteByUser(req.user.id, { except: store.currentSessionId });
      res.redirect(303, "/?notice=others-ended");
    }),
  );

  router.post(
    "/sessions/revoke-all",
    requireUser,
    handle(async (req, res) => {
      await store.deleteByUser(req.user.id);
      // Clears the cookie. The session is gone already.
      await auth.logout(req, res);
      res.redirect(303, "/login?notice=everywhere-ended");
    }),
  );

  return router;
}

module.exports = { accountRoutes, loginRoutes };
