"use strict";

const { ConnectStore } = require("@fluidauth/native-store");

const MINUTE = 60_000;

function openStore({ Store, options }) {
  return new ConnectStore(new Store({ ...options, maxSessionsPerUser: 20 }), {
    // For visitors who are not remembered: their cookie has no expiry.
    ttl: 30 * MINUTE,
    // @fastify/session saves with every response. Without this, each would be a write.
    touchAfter: MINUTE,
    userId: (session) => session.userId,
  });
}

module.exports = { openStore };
