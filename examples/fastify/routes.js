"use strict";

const { deviceName, LONGEST_NAME } = require("../shared/device");
const { text } = require("../shared/http");
const { accountPage, loginPage } = require("../shared/pages");
const { sessionsOf } = require("../shared/user-sessions");
const { authenticate } = require("../shared/users");
const { logIn, logOut } = require("./auth");
const { sendPage } = require("./send-page");

async function loginRoutes(app, { demoLogins }) {
  app.get("/login", async (request, reply) => {
    if (request.user) return reply.redirect("/");
    return sendPage(reply, loginPage({ noticeKey: text(request.query.notice), demoLogins, remember: false }));
  });

  app.post("/login", async (request, reply) => {
    const email = text(request.body?.email);
    const remember = text(request.body?.remember) !== "";
    const user = await authenticate(email, text(request.body?.password));
    if (!user) {
      const error = "Email or password is wrong.";
      return sendPage(reply.code(401), loginPage({ email, error, demoLogins, remember }));
    }
    await logIn(request, user, { remember });
    return reply.redirect("/", 303);
  });

  app.post("/logout", async (request, reply) => {
    await logOut(request, reply);
    return reply.redirect("/login?notice=logged-out", 303);
  });
}

async function requireUser(request, reply) {
  if (!request.user) return reply.redirect("/login", 303);
}

async function accountRoutes(app, { store }) {
  app.addHook("preHandler", requireUser);

  app.get("/", async ({ user, session, query }, reply) => {
    const sessions = await sessionsOf(store, user.id, session.sessionId);
    return sendPage(reply, accountPage({ user, sessions, noticeKey: text(query.notice), canRename: true }));
  });

  app.post("/device", async (request, reply) => {
    const name = text(request.body?.device).trim().slice(0, LONGEST_NAME);
    request.session.device = name || deviceName(request.headers["user-agent"]);
    return reply.redirect("/?notice=renamed", 303);
  });

  app.post("/sessions/revoke", async (request, reply) => {
    const sessions = await sessionsOf(store, request.user.id, request.session.sessionId);
    const session = sessions.find((each) => each.handle === request.body?.session);
    if (session?.isCurrent) {
      await logOut(request, reply);
      return reply.redirect("/login?notice=logged-out", 303);
    }
    // If it is gone already, there is nothing to do.
    if (session) await store.destroy(session.id);
    return reply.redirect("/?notice=session-ended", 303);
  });

  app.post("/sessions/revoke-others", async ({ user, session }, reply) => {
    await store.destroyByUser(user.id, { except: session.sessionId });
    return reply.redirect("/?notice=others-ended", 303);
  });

  app.post("/sessions/revoke-all", async (request, reply) => {
    await store.destroyByUser(request.user.id);
    // Clears the cookie. The session is gone already.
    await logOut(request, reply);
    return reply.redirect("/login?notice=everywhere-ended", 303);
  });
}

module.exports = { accountRoutes, loginRoutes };
