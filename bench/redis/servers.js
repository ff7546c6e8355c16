"use strict";

const { startCluster, startServer, startTlsServer } = require("../../__test__/support/redis-servers.js");

const NOTHING_ON_DISK = { appendonly: "no" };

/**
 * The servers that stores are measured on. `start` resolves to what a store needs to reach them (`{ urls, ca,
 * isCluster }`), to one of them, and to a function that stops them.
 */
const SERVERS = {
  plain: {
    label: "on this machine",
    async start() {
      const server = await startServer();
      return { servers: { urls: [server.url] }, one: server, stop: () => server.kill() };
    },
  },
  tls: {
    label: "on this machine, over TLS",
    async start() {
      const server = await startTlsServer();
      const servers = { urls: [server.url], ca: server.certificates.ca };
      return { servers, one: server, stop: () => server.kill() };
    },
  },
  cluster: {
    label: "on this machine, in a cluster of three primaries",
    async start() {
      const cluster = await startCluster({ settings: NOTHING_ON_DISK, hasReplicas: false });
      const servers = { urls: cluster.urls, isCluster: true };
      return { servers, one: cluster.nodes[0], stop: () => cluster.stop() };
    },
  },
};

module.exports = { SERVERS };
