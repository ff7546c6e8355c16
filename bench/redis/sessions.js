"use strict";

const { randomBytes } = require("node:crypto");
const { Cookie } = require("express-session");
const { farOff, userOf } = require("../sessions.js");

const BYTES = 232;
const DAY = 24 * 60 * 60 * 1000;

/** The session with as much more as makes its JSON as long as that of the others. */
function padded(session) {
  const rest = BYTES - JSON.stringify({ ...session, csrf: "" }).length;
  return { ...session, csrf: randomBytes(rest).toString("hex").slice(0, rest) };
}

const dataOf = (number) => ({ user: { id: userOf(number), name: "Ada Lovelace" }, step: 0 });

/** Changes a session, and not the length of its JSON: a store may write nothing for one that is as it was loaded. */
const change = (session) => Object.assign(session, { step: (session.step + 1) % 10 });

/** A session of express-session. */
function expressSession(number) {
  return padded({ cookie: new Cookie({ maxAge: DAY }), ...dataOf(number) });
}

/** One as our own stores take it. */
function nativeSession(sessionId, number) {
  const expires = new Date(farOff(number)).toISOString();
  return padded({ sessionId, userId: userOf(number), expires, ...dataOf(number) });
}

module.exports = { BYTES, change, expressSession, nativeSession };
