"use strict";

const { ConnectStore } = require("@fluidauth/native-store");

const MINUTE = 60_000;

function openStore({ Store, options }) {
  return new ConnectStore(new Store({ ...options, maxSessionsPerUser: 20 }), {
    // Of a visitor who is not remembered, as that cookie has no end of its own.
    ttl: 30 * MINUTE,
    // @fastify/session saves with every answer. Otherwise each would be a write.
    touchAfter: MINUTE,
    userId: (session) => session.userId,
  });
}

module.exports = { openStore };
