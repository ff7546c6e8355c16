"use strict";

const { deviceName } = require("../shared/device");

// Cookies do not know ports: a name of its own keeps this app apart from others on localhost.
const COOKIE_NAME = "fastify-example-session";
const REMEMBERED = 30 * 24 * 60 * 60_000;

/** Logs a user in on a new session; that which the browser had ends. */
async function logIn(request, user, { remember }) {
  await request.session.regenerate();
  const { session } = request;
  // Both, as the new session has taken over the times of the old one's cookie.
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
