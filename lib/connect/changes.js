"use strict";

const { isFastifySession } = require("./fastify-session.js");
const { hasSameData, timeOf } = require("./record.js");

/**
 * Whether a request shortens its session: whether `expires`, in milliseconds, is earlier than the end of the cookie
 * that it loaded. Renewing that cookie does not shorten the session, even if another caller had extended it.
 */
function endsSooner(session, expires, loaded) {
  if (!session.cookie?.expires || !loaded?.cookie?.expires) return false;
  const { originalMaxAge } = loaded.cookie;
  const isRenewed = typeof session.touch === "function" && originalMaxAge > 0;
  const soonest = isRenewed ? loaded.at + originalMaxAge : Number.POSITIVE_INFINITY;
  return expires < Math.min(timeOf(loaded.expires), soonest);
}

/** Whether two parsed sessions have the same data. Ignores their cookies. */
function isSameData(one, other) {
  const text = (session) => JSON.stringify({ ...session, cookie: undefined });
  return text(one) === text(other);
}

/**
 * Whether a request has not changed the data of its session. @fastify/session, and express-session with `resave`, save
 * it even so. Writing it would undo the changes of another request. `isStoredObject`: whether `set` was called with this
 * object before.
 */
function isUnmodified(session, record, origin, isStoredObject) {
  if (origin?.isRequestOwned && origin.text !== undefined && hasSameData(origin.text, record)) return true;
  // After a `set`, @fastify/session may compare the object with other data than it had then.
  return !isStoredObject && isFastifySession(session) && !session.isModified();
}

module.exports = { endsSooner, isSameData, isUnmodified };
