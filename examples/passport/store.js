"use strict";

const { ConnectStore } = require("@fluidauth/native-store");

const MINUTE = 60_000;

function openStore({ Store, options }) {
  return new ConnectStore(new Store({ ...options, maxSessionsPerUser: 20 }), {
    // Of a visitor who is not remembered, as that cookie has no end of its own.
    ttl: 30 * MINUTE,
    // Otherwise every request would be a write.
    touchAfter: MINUTE,
    userId: (session) => session.passport?.user,
  });
}

module.exports = { openStore };
