"use strict";

const HOUR = 3_600_000;

/** A session that lives for an hour. */
const session = (sessionId, fields) => ({
  sessionId,
  expires: new Date(Date.now() + HOUR).toISOString(),
  userId: "ann",
  ...fields,
});

module.exports = { session };
