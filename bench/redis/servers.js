"use strict";

const { startCluster, startServer, startTlsServer } = require("../../__test__/support/redis-servers.js");

const NOTHING_ON_DISK = { appendonly: "no" };

/**
 * The servers of the measurement. `start` resolves to their location (`{ urls, ca, isCluster }`), the servers, and a
 * function that stops them.
 */
const SERVERS = {
  plain: {
    label: "on this machine",
    async start() {
      const server = await startServer();
      return { servers: { urls: [server.url] }, all: [server], stop: () => server.kill() };
    },
  },
  tls: {
    label: "on this machine, over TLS",
    async start() {
      const server = await startTlsServer();
      const servers = { urls: [server.url], ca: server.certificates.ca };
      return { servers, all: [server], stop: () => server.kill() };
    },
  },
  cluster: {
    label: "on this machine, in a cluster of three primaries",
    async start() {
      const cluster = await startCluster({ settings: NOTHING_ON_DISK, hasReplicas: false });
      const servers = { urls: cluster.urls, isCluster: true };
      return { servers, all: cluster.nodes, stop: () => cluster.stop() };
    },
  },
};

/** Returns the CPU time that servers have used so far, in microseconds. */
async function cpuOf(servers) {
  const seconds = await Promise.all(
    servers.map(async (server) => {
      const { used_cpu_user: user, used_cpu_sys: system } = await server.info("cpu");
      return Number(user) + Number(system);
    }),
  );
  return seconds.reduce((sum, part) => sum + part, 0) * 1e6;
}

module.exports = { SERVERS, cpuOf };
