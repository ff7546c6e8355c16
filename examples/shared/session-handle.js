"use strict";

const { createHash } = require("node:crypto");

/** Names a session in a page: whoever knows an id could be that session, so no id leaves the server. */
function sessionHandle(sessionId) {
  return createHash("sha256").update(sessionId).digest("base64url").slice(0, 16);
}

module.exports = { sessionHandle };
