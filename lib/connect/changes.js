"use strict";

const { isFastifySession } = require("./fastify-session.js");
const { hasSameData, timeOf } = require("./record.js");

/**
 * Whether a request ends its session sooner than the cookie that it loaded, at `expires` in milliseconds. To renew that
 * cookie is no such change, even if something else had given the session a longer life.
 */
function endsSooner(session, expires, loaded) {
  if (!session.cookie?.expires || !loaded?.cookie?.expires) return false;
  const { originalMaxAge } = loaded.cookie;
  const isRenewed = typeof session.touch === "function" && originalMaxAge > 0;
  const soonest = isRenewed ? loaded.at + originalMaxAge : Number.POSITIVE_INFINITY;
  return expires < Math.min(timeOf(loaded.expires), soonest);
}

/** Whether two sessions, as JSON gives them, have the same data, cookies apart. */
function isSameData(one, other) {
  const text = (session) => JSON.stringify({ ...session, cookie: undefined });
  return text(one) === text(other);
}

/**
 * Whether a request has not changed the data of its session. Some requests save it all the same: those of
 * @fastify/session, and of express-session with `resave`. That would undo what another request has saved.
 */
function isUnmodified(session, record, origin) {
  if (origin?.isSure && origin.text !== undefined && hasSameData(origin.text, record)) return true;
  return isFastifySession(session) && !session.isModified();
}

module.exports = { endsSooner, isSameData, isUnmodified };
