"use strict";

const { deviceName } = require("../shared/device");

// Cookies ignore ports: a unique name separates this app from others on localhost.
const COOKIE_NAME = "fastify-example-session";
const REMEMBERED = 30 * 24 * 60 * 60_000;

/** Logs a user in on a new session. The browser's previous session ends. */
async function logIn(request, user, { remember }) {
  await request.session.regenerate();
  const { session } = request;
  // Set both, because the new session copies the times of the old cookie.
  session.options({ maxAge: remember ? REMEMBERED : null, expires: null });
  session.userId = user.id;
  session.device = deviceName(request.headers["user-agent"]);
  session.since = new Date().toISOString();
}

/** Ends the session. */
async function logOut(request, reply) {
  await request.session.destroy();
  reply.clearCookie(COOKIE_NAME);
}

module.exports = { COOKIE_NAME, logIn, logOut };
