"use strict";

const { findDriverInApp } = require("./app-packages.js");

const CONNECT_TIMEOUT = 10_000;

// Each entry makes of a module a function that begins a connection: `{ connected, call(words), close() }`, where
// `connected` resolves once there is one. A server is as `readServers` has it.
const clients = {
  redis: ({ createClient, createCluster }) => {
    // Before there were clusters, it had callbacks and no promises.
    if (!createCluster) throw new Error("it is older than redis 4");
    return ({ host, port, tls, username, password, database }) => {
      const client = createClient({
        socket: { host, port, tls, connectTimeout: CONNECT_TIMEOUT, reconnectStrategy: false },
        username,
        password,
        database,
      });
      // The calls under way fail with it.
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

/** What begins a connection to a server of Redis, by the client that the app has. */
const findRedisClient = () => findDriverInApp(clients, "connect-redis");

module.exports = { findRedisClient };
