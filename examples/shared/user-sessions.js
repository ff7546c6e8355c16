"use strict";

const { sessionHandle } = require("./session-handle");

/** Returns the sessions of a user in a `ConnectStore` for the account page, the current one first. */
async function sessionsOf(store, userId, currentId) {
  const sessions = (await store.getByUser(userId)).map(({ sid, expires, session: { device, since } }) => ({
    id: sid,
    handle: sessionHandle(sid),
    device,
    since,
    expires,
    isCurrent: sid === currentId,
  }));
  return sessions.sort((a, b) => b.isCurrent - a.isCurrent);
}

module.exports = { sessionsOf };
