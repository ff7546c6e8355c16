"use strict";

// Faults for a RedisStore under load: each one breaks something, repairs it unless it recovers by itself, and returns
// the outcome.

const { once } = require("node:events");
const net = require("node:net");
const { setTimeout: sleep } = require("node:timers/promises");
const { RedisStore } = require("../../..");
const { Traffic } = require("./traffic.js");
const { startCluster, startProxy, startSentinels, startServer } = require("../redis-servers.js");

const DEADLINE = 1000;
const WARM_UP = 1000;
const AFTERWARDS = 1000;

const now = () => performance.now();

/** Opens a store with these options, calls it while `breakIt` runs, and then compares the sessions. */
async function underLoad({ commandTimeout = DEADLINE, ...options }, breakIt) {
  const open = () => new RedisStore({ commandTimeout, sweepInterval: 0, ...options });
  const store = open();
  const traffic = new Traffic(store);
  let brokenAt = now();
  const told = {
    /** Marks the start of the fault. */
    breakNow: () => {
      brokenAt = now();
    },
  };
  try {
    traffic.start();
    const healedAt = await breakIt(traffic, told);
    await traffic.progress(AFTERWARDS);
    await traffic.stop();
    // A new store, which has not seen the fault.
    const fresh = open();
    const lost = await traffic.check(fresh);
    await fresh.close();
    return { ...traffic.summary(brokenAt, healedAt), lost, faults: traffic.faults, deadline: commandTimeout };
  } finally {
    await traffic.stop();
    await store.close();
  }
}

/** The same with a separate server, whose acknowledged writes survive a kill. */
async function withServer(options, breakIt) {
  const server = await startServer({ isDurable: true });
  try {
    return await underLoad({ url: server.url, ...options }, async (traffic, told) => {
      await traffic.progress(WARM_UP);
      told.breakNow();
      return breakIt({ server, traffic });
    });
  } finally {
    await server.kill();
  }
}

/** The same with a proxy in front of the server. */
async function withProxy(options, breakIt) {
  const server = await startServer({ isDurable: true });
  const proxy = await startProxy(server);
  try {
    return await underLoad({ url: proxy.url, ...options }, async (traffic, told) => {
      await traffic.progress(WARM_UP);
      told.breakNow();
      return breakIt({ proxy, traffic });
    });
  } finally {
    await proxy.close();
    await server.kill();
  }
}

/** The same with a cluster, whose writes are acknowledged once a replica has them. */
async function withCluster(options, breakIt) {
  const cluster = await startCluster();
  try {
    return await underLoad({ cluster: cluster.urls, ...options }, async (traffic, told) => {
      await traffic.progress(WARM_UP);
      told.breakNow();
      return breakIt({ cluster, traffic });
    });
  } finally {
    await cluster.stop();
  }
}

/**
 * The same with sentinels and their servers. `switched` resolves once they have another primary. `more`: URLs of other
 * sentinels, which come first.
 */
async function withSentinels(options, breakIt, more = []) {
  const all = await startSentinels();
  const sentinel = { urls: [...more, ...all.urls], master: all.master };
  try {
    return await underLoad({ sentinel, waitReplicas: 1, ...options }, async (traffic, told) => {
      await traffic.progress(WARM_UP);
      const { switched } = await all.nextPrimary();
      const primary = await all.primary();
      told.breakNow();
      return breakIt({ all, primary, switched });
    });
  } finally {
    await all.stop();
  }
}

/** A sentinel that accepts connections and never answers. */
async function startMuteSentinel() {
  const connections = new Set();
  const server = net.createServer((connection) => {
    connections.add(connection);
    connection.on("error", () => {});
    connection.on("close", () => connections.delete(connection));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const stop = () => {
    server.close();
    for (const connection of connections) connection.destroy();
  };
  return { url: `redis://127.0.0.1:${server.address().port}`, stop };
}

/** Writes 10 MB a second for `millis` milliseconds, more than the connection's bandwidth. The results do not matter. */
async function flood(store, millis) {
  const content = "x".repeat(10_000);
  const begun = now();
  for (let written = 0; written < millis; await sleep(10)) {
    // One per millisecond, even if this thread was late.
    for (; written < Math.min(now() - begun, millis); written++) {
      const sessionId = `flood-${written % 100}`;
      const expires = new Date(Date.now() + 3_600_000).toISOString();
      store.update(sessionId, { sessionId, expires, content }).catch(() => {});
    }
  }
}

/** Moves a slot, with calls in each of its states. */
async function moveSlot(cluster, traffic, slot, to) {
  const move = await cluster.slotMove(slot, to);
  await move.begin();
  await traffic.progress(20);
  // Sessions created in the meantime are already there.
  await move.moveKeys();
  await traffic.progress(20);
  await move.end();
  await traffic.progress(20);
}

/** Whether calls fail, or only take longer. */
const FAILS = { fails: true };
const SLOWS = { fails: false };

/** `run(options)` adds these options to those of its store. The default deadline is 1000 ms. */
const FAULTS = [
  {
    title: "redis-server killed and started again at once, three times",
    ...SLOWS,
    run: (options) =>
      withServer(options, async ({ server, traffic }) => {
        for (let round = 0; round < 3; round++) {
          if (round > 0) await traffic.progress(WARM_UP);
          await server.kill();
          await server.start();
        }
        return now();
      }),
  },
  {
    title: "redis-server killed, and away for longer than the deadline",
    ...FAILS,
    run: (options) =>
      withServer(options, async ({ server, traffic }) => {
        await server.kill();
        await traffic.failure();
        await server.start();
        return now();
      }),
  },
  {
    title: "redis-server stopped (SIGSTOP) for longer than the deadline",
    ...FAILS,
    run: (options) =>
      withServer(options, async ({ server, traffic }) => {
        await server.pause();
        await traffic.failure();
        server.resume();
        return now();
      }),
  },
  {
    title: "the server starts only after the store",
    ...FAILS,
    run: async (options) => {
      const server = await startServer({ isDurable: true });
      await server.kill();
      try {
        return await underLoad({ url: server.url, ...options }, async (traffic) => {
          await traffic.failure();
          await server.start();
          return now();
        });
      } finally {
        await server.kill();
      }
    },
  },
  {
    title: "connections cut, 20 times",
    ...SLOWS,
    run: (options) =>
      withProxy(options, async ({ proxy, traffic }) => {
        for (let round = 0; round < 20; round++) {
          proxy.drop();
          await traffic.progress(20);
        }
        return now();
      }),
  },
  {
    title: "answers cut off in the middle, 20 times",
    ...SLOWS,
    run: (options) =>
      withProxy(options, async ({ proxy, traffic }) => {
        for (let round = 0; round < 20; round++) {
          const before = proxy.accepted;
          proxy.truncate(1 + ((round * 7) % 40));
          while (proxy.accepted === before) await traffic.progress(20);
        }
        return now();
      }),
  },
  {
    title: "answers late, within the deadline",
    ...SLOWS,
    run: (options) =>
      withProxy(options, async ({ proxy, traffic }) => {
        proxy.delay(DEADLINE / 40);
        await traffic.progress(200);
        await proxy.heal();
        return now();
      }),
  },
  {
    title: "answers later than the deadline",
    ...FAILS,
    run: (options) =>
      withProxy(options, async ({ proxy, traffic }) => {
        proxy.delay(DEADLINE);
        await traffic.failure();
        await proxy.heal();
        return now();
      }),
  },
  {
    title: "connections refused for longer than the deadline",
    ...FAILS,
    run: (options) =>
      withProxy(options, async ({ proxy, traffic }) => {
        await proxy.refuse();
        await traffic.failure();
        await proxy.heal();
        return now();
      }),
  },
  {
    title: "nothing passes any more, and nobody says so",
    ...FAILS,
    run: (options) =>
      withProxy(options, async ({ proxy, traffic }) => {
        proxy.goDark();
        await traffic.failure();
        await proxy.heal();
        return now();
      }),
  },
  {
    title: "five times as many writes for 3 s as the connection carries",
    ...FAILS,
    run: (options) =>
      withProxy(options, async ({ proxy, traffic }) => {
        proxy.limit(2_000_000);
        await flood(traffic.store, 3000);
        return now();
      }),
  },
  {
    title: "the server loses its data and its connections, with a secret and a second process",
    ...SLOWS,
    run: async (more) => {
      const server = await startServer();
      const options = { url: server.url, secret: "of the processes that share the sessions", ...more };
      const old = new RedisStore({ ...options, sweepInterval: 0 });
      try {
        await old.size();
        await server.kill();
        await server.start();
        // The first to write after the loss is a new process. `old` had other keys.
        return await underLoad(options, async (traffic) => {
          await traffic.progress(WARM_UP);
          const others = new Traffic(old, { prefix: "old" }).start();
          await others.progress(WARM_UP);
          await others.stop();
          const fresh = new RedisStore({ ...options, sweepInterval: 0 });
          if ((await others.check(fresh)) + (await others.check(traffic.store)) > 0) {
            traffic.faults.push(...others.faults);
          }
          await fresh.close();
          return now();
        });
      } finally {
        await old.close();
        await server.kill();
      }
    },
  },
  {
    title: "a cluster gets a node, and slots move to it while they are used",
    ...SLOWS,
    run: (options) =>
      withCluster(options, async ({ cluster, traffic }) => {
        const to = await cluster.join();
        for (const id of traffic.ids.filter((_, at) => at % 30 === 0)) {
          const slot = await cluster.slotOf(`fluid:sess#${id}`);
          if ((await cluster.ownerOf(slot)) !== to) await moveSlot(cluster, traffic, slot, to);
        }
        return now();
      }),
  },
  {
    title: "slots of a cluster moved while they are used (ASK, MOVED)",
    ...SLOWS,
    run: (options) =>
      withCluster(options, async ({ cluster, traffic }) => {
        for (const id of traffic.ids.filter((_, at) => at % 20 === 0)) {
          const slot = await cluster.slotOf(`fluid:sess#${id}`);
          await moveSlot(cluster, traffic, slot, ((await cluster.ownerOf(slot)) + 1) % 3);
        }
        return now();
      }),
  },
  {
    title: "a primary of a cluster killed, waitReplicas: 1",
    ...FAILS,
    run: (options) =>
      withCluster({ waitReplicas: 1, ...options }, async ({ cluster }) => {
        const primary = cluster.nodes[0];
        await primary.kill();
        await cluster.untilPromoted(0);
        // Without it the new primary would have no replica to wait for.
        await primary.start();
        await cluster.untilWhole();
        return now();
      }),
  },
  {
    title: "a primary of a cluster stopped until another took over, waitReplicas: 1",
    ...FAILS,
    run: (options) =>
      withCluster({ waitReplicas: 1, ...options }, async ({ cluster }) => {
        const primary = cluster.nodes[1];
        await primary.pause();
        await cluster.untilPromoted(1);
        // It acts as the primary until it learns of the other.
        primary.resume();
        await cluster.untilWhole();
        return now();
      }),
  },
  {
    title: "all nodes of a cluster killed and started again",
    ...FAILS,
    run: (options) =>
      withCluster(options, async ({ cluster }) => {
        await Promise.all(cluster.nodes.map((node) => node.kill()));
        await Promise.all(cluster.nodes.map((node) => node.start()));
        await cluster.untilWhole();
        return now();
      }),
  },
  {
    title: "the primary that sentinels watch killed, waitReplicas: 1",
    ...FAILS,
    run: (options) =>
      withSentinels(options, async ({ primary, switched }) => {
        await primary.kill();
        await switched;
        return now();
      }),
  },
  {
    title: "the primary that sentinels watch killed, and the first sentinel never answers, waitReplicas: 1",
    ...FAILS,
    run: async (options) => {
      const mute = await startMuteSentinel();
      try {
        const fault = async ({ primary, switched }) => {
          await primary.kill();
          await switched;
          return now();
        };
        return await withSentinels(options, fault, [mute.url]);
      } finally {
        mute.stop();
      }
    },
  },
  {
    title: "the primary that sentinels watch stopped until another took over, waitReplicas: 1",
    ...FAILS,
    run: (options) =>
      withSentinels(options, async ({ all, primary, switched }) => {
        await primary.pause();
        await switched;
        // It acts as the primary until a sentinel reconfigures it.
        primary.resume();
        await all.untilReplica(primary);
        return now();
      }),
  },
];

module.exports = { FAULTS };
