"use strict";

const { startServer } = require("../../__test__/support/redis-servers.js");

const CALLS = ["get", "touch", "create"];
/** The same number of concurrent calls: each on its own connection, as from many processes, or all on one. */
const WAYS = { spread: { count: 64, inFlight: 1 }, together: { count: 1, inFlight: 64 } };

const usedMemory = async (server) => Number((await server.info("memory")).used_memory);

/** Returns the CPU time of all threads of the server, in microseconds. */
async function usedCpu(server) {
  const { used_cpu_user, used_cpu_sys } = await server.info("cpu");
  return (Number(used_cpu_user) + Number(used_cpu_sys)) * 1e6;
}

/**
 * Measures a RedisStore on its own server, which keeps nothing on disk: `{ server, bytes, cpu }`, by call and by way.
 */
async function measureRedis(child, { size, content, seconds }) {
  const server = await startServer();
  try {
    const { redis_version: version } = await server.info("server");
    const empty = await usedMemory(server);
    await child.call("fillRedis", { url: server.url, size, content });
    const bytes = ((await usedMemory(server)) - empty) / size;
    const cpu = {};
    for (const call of CALLS) {
      cpu[call] = {};
      for (const [way, callers] of Object.entries(WAYS)) {
        const before = await usedCpu(server);
        const calls = await child.call("callRedis", { call, ...callers, seconds });
        cpu[call][way] = ((await usedCpu(server)) - before) / calls;
      }
    }
    return { version, bytes, cpu };
  } finally {
    await server.kill();
  }
}

module.exports = { measureRedis };
