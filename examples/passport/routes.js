"use strict";

const { Router } = require("express");
const { deviceName, LONGEST_NAME } = require("../shared/device");
const { handle } = require("../shared/express");
const { text } = require("../shared/http");
const { accountPage, loginPage } = require("../shared/pages");
const { sessionsOf } = require("../shared/user-sessions");
const { checkPassword, logIn, logOut, saveSession } = require("./auth");

function loginRoutes({ passport, demoLogins }) {
  const router = Router();

  router.get("/login", (req, res) => {
    if (req.user) return res.redirect("/");
    res.send(String(loginPage({ noticeKey: text(req.query.notice), demoLogins, remember: false })));
  });

  router.post(
    "/login",
    handle(async (req, res) => {
      const user = await checkPassword(passport, req, res);
      if (!user) {
        const error = "Email or password is wrong.";
        const remember = text(req.body.remember) !== "";
        const page = loginPage({ email: text(req.body.email), error, demoLogins, remember });
        return res.status(401).send(String(page));
      }
      await logIn(req, user);
      res.redirect(303, "/");
    }),
  );

  router.post(
    "/logout",
    handle(async (req, res) => {
      await logOut(req, res);
      res.redirect(303, "/login?notice=logged-out");
    }),
  );

  return router;
}

function requireUser(req, res, next) {
  if (req.user) return next();
  res.redirect(303, "/login");
}

function accountRoutes({ store }) {
  const router = Router();

  router.get(
    "/",
    requireUser,
    handle(async (req, res) => {
      const { user } = req;
      const sessions = await sessionsOf(store, user.id, req.sessionID);
      const page = accountPage({ user, sessions, noticeKey: text(req.query.notice), canRename: true });
      res.send(String(page));
    }),
  );

  router.post(
    "/device",
    requireUser,
    handle(async (req, res) => {
      const name = text(req.body.device).trim().slice(0, LONGEST_NAME);
      req.session.device = name || deviceName(req.headers["user-agent"]);
      await saveSession(req);
      res.redirect(303, "/?notice=renamed");
    }),
  );

  router.post(
    "/sessions/revoke",
    requireUser,
    handle(async (req, res) => {
      const sessions = await sessionsOf(store, req.user.id, req.sessionID);
      const session = sessions.find((each) => each.handle === req.body.session);
      if (session?.isCurrent) {
        await logOut(req, res);
        return res.redirect(303, "/login?notice=logged-out");
      }
      // If it is gone already, there is nothing to do.
      if (session) await store.destroy(session.id);
      res.redirect(303, "/?notice=session-ended");
    }),
  );

  router.post(
    "/sessions/revoke-others",
    requireUser,
    handle(async (req, res) => {
      await store.destroyByUser(req.user.id, { except: req.sessionID });
      res.redirect(303, "/?notice=others-ended");
    }),
  );

  router.post(
    "/sessions/revoke-all",
    requireUser,
    handle(async (req, res) => {
      await store.destroyByUser(req.user.id);
      // Clears the cookie. The session is gone already.
      await logOut(req, res);
      res.redirect(303, "/login?notice=everywhere-ended");
    }),
  );

  return router;
}

module.exports = { accountRoutes, loginRoutes };
