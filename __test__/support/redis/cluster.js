"use strict";

const { linesOf, BASE, DURABLE, startOnFreePort } = require("./server.js");
const { freeNodePort } = require("./ports.js");
const { until } = require("./until.js");

const SLOTS = 16_384;
const PRIMARIES = 3;

const settingsOf = (settings) => ({
  ...BASE,
  ...DURABLE,
  "cluster-enabled": "yes",
  "cluster-config-file": "nodes.conf",
  // The time until a node without answers counts as lost.
  "cluster-node-timeout": 1000,
  // A replica may take over, however long it was disconnected.
  "cluster-replica-validity-factor": 0,
  // More than there are, so that no replica migrates to another primary. Redis 6.2.0 has no switch for that.
  "cluster-migration-barrier": PRIMARIES,
  "repl-ping-replica-period": 1,
  ...settings,
});

const shareOf = (at) => {
  const [from, to] = [at, at + 1].map((edge) => Math.round((edge * SLOTS) / PRIMARIES));
  return Array.from({ length: to - from }, (_, slot) => from + slot);
};

/** Three primaries, with a replica each or without. Initially `nodes[3 + n]` is the replica of `nodes[n]`. */
class RedisCluster {
  constructor(nodes) {
    this.nodes = nodes;
  }

  get urls() {
    return this.nodes.map((node) => node.url);
  }

  async form() {
    const { nodes } = this;
    this.ids = await Promise.all(nodes.map((node) => node.call("CLUSTER", "MYID")));
    await Promise.all(nodes.map((node, at) => node.call("CLUSTER", "SET-CONFIG-EPOCH", at + 1)));
    const primaries = nodes.slice(0, PRIMARIES);
    await Promise.all(primaries.map((node, at) => node.call("CLUSTER", "ADDSLOTS", ...shareOf(at))));
    // Introduce all nodes to each other, because gossip would take longer.
    for (const node of nodes) {
      for (const other of nodes) {
        if (node !== other) await node.call("CLUSTER", "MEET", "127.0.0.1", other.port);
      }
    }
    await until(async () => {
      const lists = await Promise.all(nodes.map((node) => node.call("CLUSTER", "NODES")));
      return lists.every((list) => this.ids.every((id) => list.includes(id)) && !list.includes("handshake"));
    }, "the nodes know each other");
    const replicas = nodes.slice(PRIMARIES);
    await Promise.all(replicas.map((node, at) => node.call("CLUSTER", "REPLICATE", this.ids[at])));
    await this.untilWhole();
  }

  /** Waits until every running node reports the cluster as healthy, and each replica follows its primary. */
  untilWhole(nodes = this.nodes) {
    return until(async () => {
      const states = await Promise.all(nodes.map((node) => this.#isWell(node).catch(() => false)));
      return states.every(Boolean);
    }, "the cluster is whole");
  }

  async #isWell(node) {
    const { cluster_state: state } = linesOf(await node.call("CLUSTER", "INFO"));
    const known = (await node.call("CLUSTER", "NODES")).match(/ (myself,)?slave /g)?.length ?? 0;
    if (known !== this.nodes.length - PRIMARIES) return false;
    if (known === 0) return state === "ok";
    const { role, master_link_status: link, connected_slaves: followers } = await node.info("replication");
    return state === "ok" && (role === "slave" ? link === "up" : Number(followers) > 0);
  }

  /** Adds a node without slots. Returns its index in `nodes`. */
  async join() {
    const node = await startOnFreePort(() => ({ settings: settingsOf() }), freeNodePort);
    this.nodes.push(node);
    this.ids.push(await node.call("CLUSTER", "MYID"));
    const at = this.nodes.length - 1;
    await node.call("CLUSTER", "MEET", "127.0.0.1", this.nodes[0].port);
    await until(async () => {
      const lists = await Promise.all(this.nodes.map((each) => each.call("CLUSTER", "NODES")));
      if (!lists.every((list) => list.includes(this.ids[at]) && !list.includes("handshake"))) return false;
      return linesOf(await node.call("CLUSTER", "INFO")).cluster_state === "ok";
    }, "all nodes know the new one");
    return at;
  }

  slotOf(key) {
    return this.nodes[0].call("CLUSTER", "KEYSLOT", key);
  }

  /** Returns the index in `nodes` of the node that serves a slot. */
  async ownerOf(slot) {
    const ranges = await this.nodes.find((node) => node !== this.away).call("CLUSTER", "SLOTS");
    const [, , [, , id]] = ranges.find(([from, to]) => from <= slot && slot <= to);
    return this.ids.indexOf(id);
  }

  /** Kills a primary, and resolves once its replica has taken over. */
  async killPrimary(at) {
    this.away = this.nodes[at];
    await this.away.kill();
    return this.nodes[PRIMARIES + at];
  }

  untilPromoted(at) {
    const replica = this.nodes[PRIMARIES + at];
    return until(async () => (await replica.info("replication")).role === "master", "the replica takes over");
  }

  /**
   * Moves a slot to another primary in steps that a test can pause between. After `begin` clients get ASK for moved
   * keys, after `end` they get MOVED.
   */
  async slotMove(slot, to) {
    const { nodes, ids } = this;
    const from = await this.ownerOf(slot);
    const set = (at, ...words) => nodes[at].call("CLUSTER", "SETSLOT", slot, ...words);
    return {
      begin: async () => {
        await set(to, "IMPORTING", ids[from]);
        await set(from, "MIGRATING", ids[to]);
      },
      moveKeys: async (count = 1000) => {
        const keys = await nodes[from].call("CLUSTER", "GETKEYSINSLOT", slot, count);
        if (keys.length === 0) return 0;
        await nodes[from].call("MIGRATE", "127.0.0.1", nodes[to].port, "", 0, 5000, "KEYS", ...keys);
        return keys.length;
      },
      end: async () => {
        // Notify the receiver first, or no node would serve the slot for a moment.
        await set(to, "NODE", ids[to]);
        await set(from, "NODE", ids[to]);
      },
    };
  }

  async stop() {
    await Promise.all(this.nodes.map((node) => node.kill()));
  }
}

/** Starts a complete cluster: six nodes, or three without replicas. */
async function startCluster({ settings, hasReplicas = true } = {}) {
  const start = () => startOnFreePort(() => ({ settings: settingsOf(settings) }), freeNodePort);
  const length = hasReplicas ? 2 * PRIMARIES : PRIMARIES;
  const cluster = new RedisCluster(await Promise.all(Array.from({ length }, start)));
  await cluster.form();
  return cluster;
}

module.exports = { startCluster };
