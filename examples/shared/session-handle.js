"use strict";

const { createHash } = require("node:crypto");

/** Names a session in a page. Anyone who knows an id could use the session, so ids never leave the server. */
function sessionHandle(sessionId) {
  return createHash("sha256").update(sessionId).digest("base64url").slice(0, 16);
}

module.exports = { sessionHandle };
