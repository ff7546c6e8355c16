"use strict";

const { findDriverInApp } = require("./app-packages.js");

const CONNECT_TIMEOUT = 10_000;

// Each entry adapts a module to a function that starts a connection: `{ connected, call(words), close() }`. `connected`
// resolves once there is one. A server has the form of `readServers`.
const clients = {
  redis: ({ createClient, createCluster }) => {
    // Versions without clusters have callbacks and no promises.
    if (!createCluster) throw new Error("it is older than redis 4");
    return ({ host, port, tls, username, password, database }) => {
      const client = createClient({
        socket: { host, port, tls, connectTimeout: CONNECT_TIMEOUT, reconnectStrategy: false },
        username,
        password,
        database,
      });
      // The pending calls report the error.
      client.on("error", () => {});
      return {
        connected: client.connect(),
        call: (words) => client.sendCommand(words),
        close: () => client.isOpen && (client.destroy ? client.destroy() : client.disconnect()),
      };
    };
  },
  ioredis: (module) => {
    const Redis = module.default ?? module;
    return ({ host, port, tls, username, password, database }) => {
      const client = new Redis({
        ...{ host, port, username, password, db: database },
        ...(tls && { tls: {} }),
        connectTimeout: CONNECT_TIMEOUT,
        lazyConnect: true,
        enableReadyCheck: false,
        retryStrategy: () => null,
        maxRetriesPerRequest: 0,
      });
      let reason;
      client.on("error", (error) => {
        reason = error;
      });
      const connected = client.connect().catch((error) => {
        throw reason ?? error;
      });
      return {
        connected,
        call: ([name, ...words]) => client.call(name, ...words),
        close: () => client.disconnect(),
      };
    };
  },
};

/** Finds the app's Redis client. Returns a function that starts a connection. */
const findRedisClient = () => findDriverInApp(clients, "connect-redis");

module.exports = { findRedisClient };
