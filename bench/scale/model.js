"use strict";

// What sessions cost, by their number. All of it is pure: costs and choices are arguments.

const { createNs, writtenACreate } = require("./writes.js");

/** The smallest store that costs are taken from, as a share of the reference. */
const SMALLEST = 1 / 10;

/** What one figure comes to. Sessions of three fields have a compact form; with app data they grow by each byte of it. */
function figure({ plain, base, perByte = 0, perDecade = 0, fixed = 0 }, reference, { size, content }) {
  const ofContent = content === 0 ? plain : base + perByte * content;
  // Nothing was measured in stores that are smaller.
  return ofContent + perDecade * Math.log10(Math.max(size / reference, SMALLEST)) + fixed / size;
}

/** Every figure of a store at a size: bytes a session, nanoseconds a call, milliseconds for the opening. */
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

/** Calls a second, of sessions that come and go evenly. */
function trafficOf({ secondsBetweenRequests, touchShare, lifetimeSeconds }, sessions) {
  const gets = sessions / secondsBetweenRequests;
  return { gets, touches: gets * touchShare, creates: sessions / lifetimeSeconds };
}

/** Nanoseconds in a second. */
const NS = 1e9;

/** One process with a MemoryStore. `first` is the resource of the machine of which the largest share is used. */
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

/** One machine with a FileStore. A file larger than the memory still works, but then reads wait for the disk. */
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

/** A server, or a cluster of shards that each have replicas, on machines of which none has a shard and its replica. */
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
  // Where two machines have three primaries, one machine takes the majority with it.
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

/** A cluster has at least three primaries: fewer cannot agree that one has failed. */
const shardsOf = (needed) => (needed <= 1 ? 1 : Math.max(3, needed));

/** What the loss of one primary costs until its replica has taken over, and until there is another replica. */
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

/** The resource with the largest share, and that share. */
function fullest(shares) {
  const [first, share] = Object.entries(shares).reduce((most, one) => (one[1] > most[1] ? one : most));
  return { first, share };
}

const SEARCH_STEPS = 60;
const MAX_SESSIONS = 1e12;

/** How many sessions a plan for one machine can take: the most for which no share of it is above 1. */
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
