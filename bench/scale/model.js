"use strict";

// Predicts costs by the number of sessions. All functions are pure: costs and choices are arguments.

const { createNs, writtenACreate } = require("./writes.js");

/** The smallest measured store, relative to the reference. */
const SMALLEST = 1 / 10;

/** Predicts one figure. Sessions of three fields have a compact form. With app data they grow by each byte of it. */
function figure({ plain, base, perByte = 0, perDecade = 0, fixed = 0 }, reference, { size, content }) {
  const ofContent = content === 0 ? plain : base + perByte * content;
  // Smaller stores were not measured.
  return ofContent + perDecade * Math.log10(Math.max(size / reference, SMALLEST)) + fixed / size;
}

/** Predicts every figure of a store: bytes per session, nanoseconds per call, milliseconds to open. */
function predict(costs, store, { size, content }) {
  const { writes } = costs[store];
  const figures = Object.fromEntries(
    Object.entries(costs[store].figures).map(([name, cost]) => [
      name,
      figure(cost, costs.reference, { size, content }),
    ]),
  );
  if (writes === undefined) return figures;
  const written = writtenACreate(writes, { fileBytes: figures.bytes * size, content });
  return { ...figures, create: createNs(writes, written), written };
}

/** Returns the calls a second in a steady state. */
function trafficOf({ secondsBetweenRequests, touchShare, lifetimeSeconds }, sessions) {
  const gets = sessions / secondsBetweenRequests;
  return { gets, touches: gets * touchShare, creates: sessions / lifetimeSeconds };
}

/** Nanoseconds in a second. */
const NS = 1e9;

/** Plans one process with a MemoryStore. `first`: the resource with the highest utilization. */
function planMemory(costs, choices, { sessions, content }) {
  const each = predict(costs, "memory", { size: sessions, content });
  const { gets, touches, creates } = trafficOf(choices, sessions);
  const bytes = each.bytes * sessions;
  const shares = {
    memory: bytes / (choices.machine.memory * choices.usableMemory),
    "event loop": (gets * each.get + (touches + creates) * each.create) / NS / choices.busyShare,
  };
  return { bytes, ...fullest(shares) };
}

/** Plans one machine with a FileStore. A file larger than the memory still works, but reads then wait for the disk. */
function planFile(costs, choices, { sessions, content }) {
  const each = predict(costs, "file", { size: sessions, content });
  const { gets, touches, creates } = trafficOf(choices, sessions);
  const writes = touches + creates;
  const bytes = each.bytes * sessions;
  const shares = {
    memory: bytes / (choices.machine.memory * choices.usableMemory),
    writer: (writes * each.create) / NS / choices.busyShare,
    "event loop": (gets * each.get) / NS / (choices.machine.cores * choices.busyShare),
    disk: (writes * each.written) / (choices.machine.diskBytesPerSecond * choices.busyShare),
  };
  return {
    bytes,
    open: each.open,
    writes,
    writtenPerSecond: writes * each.written,
    restoreSeconds: bytes / choices.machine.diskBytesPerSecond,
    ...fullest(shares),
  };
}

/** Plans a server, or a cluster with replicas for each shard. No machine has a shard and its replica. */
function planRedis(costs, choices, { sessions, content }) {
  const each = predict(costs, "redis", { size: sessions, content });
  const { gets, touches, creates } = trafficOf(choices, sessions);
  const { cpu } = costs.redis;
  const bytes = each.bytes * sessions;
  const cores = (gets * cpu.get.spread + touches * cpu.touch.spread + creates * cpu.create.spread) / 1e6;
  const needed = {
    memory: bytes / choices.shardBytes,
    "server's core": cores / choices.busyShare,
  };
  const { first } = fullest(needed);
  const shards = shardsOf(Math.ceil(Math.max(...Object.values(needed))));
  const servers = shards * (1 + choices.replicas);
  const serversAMachine = Math.max(
    1,
    Math.min(
      Math.floor((choices.machine.memory * choices.usableMemory) / choices.shardBytes),
      Math.floor(choices.machine.cores * choices.busyShare),
    ),
  );
  // With three primaries on two machines, the loss of one machine could lose the majority.
  const apart = shards === 1 ? choices.replicas + 1 : Math.max(3, choices.replicas + 1);
  const machines = Math.max(apart, Math.ceil(servers / serversAMachine));
  return {
    bytes,
    cores,
    first,
    shards,
    servers,
    machines,
    failover: failoverOf(choices, { shards, bytes, sessions }),
  };
}

/** A cluster needs at least three primaries to agree that one has failed. */
const shardsOf = (needed) => (needed <= 1 ? 1 : Math.max(3, needed));

/** Predicts the effects of losing a primary, until its replica has taken over, and until there is a new replica. */
function failoverOf(choices, { shards, bytes, sessions }) {
  const { gets, touches, creates } = trafficOf(choices, sessions);
  const { failoverSeconds, lagSeconds, networkBytesPerSecond } = choices;
  return {
    sessions: sessions / shards,
    calls: ((gets + touches + creates) / shards) * failoverSeconds,
    writesAtRisk: ((touches + creates) / shards) * lagSeconds,
    resyncSeconds: bytes / shards / networkBytesPerSecond,
  };
}

/** Returns the resource with the highest utilization, and that utilization. */
function fullest(shares) {
  const [first, share] = Object.entries(shares).reduce((most, one) => (one[1] > most[1] ? one : most));
  return { first, share };
}

const SEARCH_STEPS = 60;
const MAX_SESSIONS = 1e12;

/** Returns the capacity of a plan for one machine: the maximum number of sessions with no utilization above 1. */
function capacityOf(plan, costs, choices, content) {
  let low = 1;
  let high = MAX_SESSIONS;
  for (let step = 0; step < SEARCH_STEPS; step++) {
    const sessions = Math.sqrt(low * high);
    if (plan(costs, choices, { sessions, content }).share <= 1) low = sessions;
    else high = sessions;
  }
  return low;
}

module.exports = { capacityOf, planFile, planMemory, planRedis, predict, trafficOf };
