"use strict";

const { BASE, DURABLE, startOnFreePort } = require("./server.js");
const { until } = require("./until.js");

const MASTER = "sessions";
const QUORUM = 2;

const sentinelSettings = (primary) => ({
  "sentinel monitor": `${MASTER} 127.0.0.1 ${primary.port} ${QUORUM}`,
  "sentinel down-after-milliseconds": `${MASTER} 500`,
  "sentinel failover-timeout": `${MASTER} 3000`,
  "sentinel parallel-syncs": `${MASTER} 2`,
});

/** A primary and two replicas, with three sentinels that watch them. */
class Sentinels {
  master = MASTER;

  constructor(servers, sentinels) {
    this.servers = servers;
    this.sentinels = sentinels;
  }

  get urls() {
    return this.sentinels.map((sentinel) => sentinel.url);
  }

  /** Resolves to the server that they report as the primary. */
  async primary() {
    const [, port] = await this.sentinels[0].call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER);
    return this.servers.find((server) => server.port === Number(port));
  }

  async untilWhole() {
    await until(async () => {
      const [primary, ...replicas] = this.servers;
      const { connected_slaves: followers } = await primary.info("replication");
      const links = await Promise.all(replicas.map((replica) => replica.info("replication")));
      return Number(followers) === replicas.length && links.every((link) => link.master_link_status === "up");
    }, "the replicas follow");
    await until(async () => {
      const answers = await Promise.all(
        this.sentinels.map((sentinel) => sentinel.call("SENTINEL", "CKQUORUM", MASTER).catch(() => "")),
      );
      const known = await Promise.all(
        this.sentinels.map((sentinel) => sentinel.call("SENTINEL", "REPLICAS", MASTER)),
      );
      return answers.every((answer) => answer.startsWith("OK 3")) && known.every((list) => list.length === 2);
    }, "the sentinels know each other");
  }

  /** Resolves to a promise of the port of the next primary, from a sentinel's event. */
  async nextPrimary() {
    const listener = await this.sentinels[0].connect();
    const switched = new Promise((resolve) => {
      listener.onMessage = ([, , message]) => resolve(Number(message.split(" ")[4]));
    });
    await listener.call("SUBSCRIBE", "+switch-master");
    return { switched };
  }

  /** Waits until a former primary follows another one. The sentinel that reconfigures it cuts its connections. */
  untilReplica(server) {
    const follows = () => server.info("replication").then(({ role }) => role === "slave");
    return until(() => follows().catch(() => false), "it follows another");
  }

  async stop() {
    await Promise.all([...this.sentinels, ...this.servers].map((server) => server.kill()));
  }
}

async function startSentinels() {
  const settings = { ...BASE, ...DURABLE, "repl-ping-replica-period": 1 };
  const primary = await startOnFreePort(() => ({ settings }));
  const following = { ...settings, replicaof: `127.0.0.1 ${primary.port}` };
  const replicas = await Promise.all([1, 2].map(() => startOnFreePort(() => ({ settings: following }))));
  const sentinels = await Promise.all(
    [1, 2, 3].map(() =>
      startOnFreePort(() => ({ program: "redis-sentinel", settings: sentinelSettings(primary) })),
    ),
  );
  const all = new Sentinels([primary, ...replicas], sentinels);
  await all.untilWhole();
  return all;
}

module.exports = { startSentinels };
