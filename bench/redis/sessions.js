"use strict";

const { randomBytes } = require("node:crypto");
const { Cookie } = require("express-session");
const { farOff, userOf } = require("../sessions.js");

const BYTES = 232;
const DAY = 24 * 60 * 60 * 1000;

/** Pads a session, so that its JSON is as long as that of the others. */
function padded(session) {
  const rest = BYTES - JSON.stringify({ ...session, csrf: "" }).length;
  return { ...session, csrf: randomBytes(rest).toString("hex").slice(0, rest) };
}

const dataOf = (number) => ({ user: { id: userOf(number), name: "Ada Lovelace" }, step: 0 });

/** Changes a session, but not the length of its JSON. A store may skip the write of an unchanged session. */
const change = (session) => Object.assign(session, { step: (session.step + 1) % 10 });

/** Returns a session of express-session. */
function expressSession(number) {
  return padded({ cookie: new Cookie({ maxAge: DAY }), ...dataOf(number) });
}

/** Returns a session for our own stores. */
function nativeSession(sessionId, number) {
  const expires = new Date(farOff(number)).toISOString();
  return padded({ sessionId, userId: userOf(number), expires, ...dataOf(number) });
}

module.exports = { BYTES, change, expressSession, nativeSession };
