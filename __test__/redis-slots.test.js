"use strict";

// Calls on all sessions of a cluster whose slots move while the nodes are scanned sequentially.

const assert = require("node:assert/strict");
const { after, before, describe, it } = require("node:test");
const { RedisStore } = require("..");
const { session } = require("./support/file-session.js");
const { redisMissing, startCluster, until } = require("./support/redis-servers.js");

const PRIMARIES = [0, 1, 2];
const SESSIONS = 3000;

describe("while slots of a cluster move,", { skip: redisMissing }, () => {
  let cluster;
  before(async () => {
    cluster = await startCluster();
  });
  after(() => cluster?.stop());

  const idsOf = (prefix) => Array.from({ length: SESSIONS }, (_, at) => `${prefix} ${at}`);

  /** A store with sessions, and the slots of some of them on each primary. */
  async function openWith(prefix) {
    const store = new RedisStore({ cluster: cluster.urls, prefix, sweepInterval: 0, commandTimeout: 30_000 });
    await Promise.all(idsOf(prefix).map((id) => store.create(session(id))));
    const slots = PRIMARIES.map(() => []);
    for (const id of idsOf(prefix).slice(0, 60)) {
      const slot = await cluster.slotOf(`${prefix}sess#${id}`);
      slots[await cluster.ownerOf(slot)].push(slot);
    }
    return { store, slots };
  }

  async function move(slot, to) {
    const { begin, moveKeys, end } = await cluster.slotMove(slot, to);
    await begin();
    await moveKeys();
    await end();
    // Otherwise an older message may undo the next move.
    await until(async () => {
      const each = await Promise.all(PRIMARIES.map((at) => cluster.nodes[at].call("CLUSTER", "SLOTS")));
      return each.every((ranges) =>
        ranges.some(([first, last, [, , id]]) => first <= slot && slot <= last && id === cluster.ids[to]),
      );
    }, "all know who has the slot");
  }

  /** Exchanges slots between the first scanned node and the others. */
  async function moveAround(slots) {
    for (const from of PRIMARIES) {
      for (const to of PRIMARIES.filter((other) => other !== from)) await move(slots[from].pop(), to);
    }
  }

  const keysLeft = async (pattern) => {
    const each = await Promise.all(PRIMARIES.map((at) => cluster.nodes[at].call("KEYS", pattern)));
    return each.flat();
  };

  for (const [name, idOf] of [
    ["ids", (id) => id],
    ["sessions", ({ session }) => session.sessionId],
  ]) {
    it(`${name}() yields each once`, async () => {
      const { store, slots } = await openWith(`${name}:`);
      const found = [];
      for await (const one of store[name]()) {
        found.push(idOf(one));
        if (found.length === 1) await moveAround(slots);
      }
      assert.deepEqual(found.sort(), idsOf(`${name}:`).sort());
      assert.equal(await store.size(), SESSIONS);
      await store.close();
    });
  }

  it("ids() yields each id, even while a slot is migrating the whole time", async () => {
    const { store, slots } = await openWith("between:");
    const moves = [];
    for (const from of PRIMARIES) moves.push(await cluster.slotMove(slots[from].pop(), (from + 1) % 3));
    for (const { begin } of moves) await begin();
    const found = [];
    for await (const id of store.ids()) {
      found.push(id);
      if (found.length === 1) for (const { moveKeys } of moves) await moveKeys();
    }
    assert.deepEqual(found.sort(), idsOf("between:").sort());
    for (const { end } of moves) await end();
    await store.close();
  });

  it("clear() leaves no session", async () => {
    const { store, slots } = await openWith("clear:");
    let isOver = false;
    const clearing = store.clear().finally(() => {
      isOver = true;
    });
    while (!isOver && slots.every((some) => some.length > 1)) await moveAround(slots);
    await clearing;
    assert.deepEqual(await keysLeft("clear:sess#*"), []);
    await store.close();
  });
});
