"use strict";

// Full stores: by their disk, or by `maxBytes`.

const assert = require("node:assert/strict");
const path = require("node:path");
const { describe, it } = require("node:test");
const { FileStore } = require("..");
const { Filling } = require("./support/file-filling.js");
const { makePlace, skip } = require("./support/file-places.js");
const { execute, findPrefix, run } = require("./support/file-scripts.js");
const { session } = require("./support/file-session.js");

const MIB = 2 ** 20;
const place = makePlace();

// A command that gives a process its own small disk: as root, or as a user who may create a namespace.
const disk = place.root;
const mountOf = (size) => ["sh", "-c", `mount -t tmpfs -o size=${size} tmpfs "$0" && exec "$@"`, disk];
const prefixOf = (size) =>
  skip ? undefined : findPrefix(["unshare", "-m", ...mountOf(size)], ["unshare", "-rm", ...mountOf(size)]);
// Too small for a log, and large enough for one.
const mounted = prefixOf("12m");
const mountedWithLog = prefixOf("32m");
const skipMounts = skip || (mounted === undefined && "nothing can be mounted here");

describe("a store on a full disk", { skip: skipMounts }, () => {
  const STORY = path.join(__dirname, "support/file-full-disk.js");
  for (const [what, prefix, ...args] of [
    ["with small sessions", mounted, "0"],
    ["with larger sessions", mounted, "3000"],
    ["with sessions of many pages", mounted, "20000"],
    ["that others have filled", mounted, "0", "others"],
    ["that others have filled, with larger sessions", mounted, "3000", "others"],
    ["with a log and small sessions", mountedWithLog, "0"],
    ["with a log and larger sessions", mountedWithLog, "3000"],
    ["with a log and sessions of many pages", mountedWithLog, "20000"],
    ["with a log, that others have filled", mountedWithLog, "0", "others"],
    ["with a log, that others have filled, with larger sessions", mountedWithLog, "3000", "others"],
  ]) {
    it(`${what} loses nothing, and continues once there is room`, async (t) => {
      const printed = await execute([...prefix, process.execPath, STORY, disk, ...args]);
      const { first, again, more, largest } = JSON.parse(printed);
      t.diagnostic(`${first} sessions; ${again} after deletes; ${more} with a larger disk; ${largest} bytes`);
    });
  }
});

describe("a user with very many sessions", { skip: skipMounts }, () => {
  it("is logged out on a full disk too", async () => {
    const script = `
      (async () => {
        const store = new FileStore({ path: process.argv[1] + "/sessions", sweepInterval: 0 });
        const id = () => require("node:crypto").randomBytes(18).toString("hex");
        const create = (_, at) => store.create(session(id(), { userId: at % 20 }));
        for (let isFull = false; !isFull; ) {
          isFull = (await Promise.allSettled(Array.from({ length: 100 }, create))).some(({ reason }) => reason);
        }
        try {
          for (;;) require("node:fs").appendFileSync(process.argv[1] + "/ballast", Buffer.alloc(4096));
        } catch {}
        const held = (await store.getByUser(3)).length;
        say(held === (await store.deleteByUser(3)));
      })();`;
    assert.equal(await run(script, { prefix: mounted, args: [disk] }), "true");
  });
});

/** Alternately fills and empties a store. Returns how many sessions it accepted each time. */
async function fillByTurns({ maxBytes, size, atOnce }) {
  const options = { path: place.next(), maxBytes, sweepInterval: 0 };
  const filling = new Filling(new FileStore(options), { size, atOnce });
  const counts = [];
  for (let turn = 0; turn < 6; turn++) {
    counts.push(await filling.fillAgain());
    await filling.check();
    await filling.touch(20);
    await filling.expire(20);
    await filling.deleteByUser();
    await filling.check();
    await filling.delete(Infinity);
    assert.equal(await filling.store.size(), 0);
  }
  await filling.store.close();
  await new FileStore(options).close();
  return { counts, largest: filling.largest };
}

describe("a store with maxBytes", { skip }, () => {
  const cases = [
    { maxBytes: MIB, size: 0, atOnce: 1 },
    { maxBytes: MIB, size: 3000, atOnce: 8 },
    { maxBytes: 4 * MIB, size: 0, atOnce: 64 },
    { maxBytes: 4 * MIB, size: 0, atOnce: 256 },
    { maxBytes: 4 * MIB, size: 20_000, atOnce: 8 },
  ];
  for (const one of cases) {
    const { maxBytes, size, atOnce } = one;
    const title = `of ${maxBytes} takes as many sessions each time: ${atOnce} at once, ${size} bytes more in each`;
    it(title, async (t) => {
      const { counts, largest } = await fillByTurns(one);
      t.diagnostic(`sessions: ${counts.join(", ")}; largest file: ${largest}`);
      assert.ok(Math.min(...counts) > 0.7 * Math.max(...counts), `${counts}`);
      assert.ok(largest <= maxBytes, `the file had ${largest} bytes`);
    });
  }

  it("accepts as many concurrent sessions as there is room for", async () => {
    const store = new FileStore({ path: place.next(), maxBytes: 4 * MIB });
    const blob = "x".repeat(100_000);
    const outcomes = await Promise.allSettled(
      Array.from({ length: 64 }, (_, at) => store.create(session(`${at}`, { blob }))),
    );
    const taken = outcomes.filter(({ status }) => status === "fulfilled").length;
    await store.close();
    assert.ok(taken > 10 && taken < 42, `${taken}`);
  });

  it("removes expired sessions before it refuses", async (t) => {
    const filling = new Filling(new FileStore({ path: place.next(), maxBytes: MIB, sweepInterval: 0 }));
    // Three times as many as there is room for.
    const expired = Array.from({ length: 9000 }, (_, at) =>
      session(`expired-${at}`, { expires: new Date(1) }),
    );
    for (const one of expired) await filling.store.create(one);
    const live = await filling.fill();
    await filling.check();
    await filling.store.close();
    t.diagnostic(`largest file: ${filling.largest}`);
    assert.ok(live > 2000, `${live}`);
  });

  it("accepts new sessions as soon as old ones are gone", async () => {
    const filling = new Filling(new FileStore({ path: place.next(), maxBytes: 4 * MIB }));
    await filling.fill();
    await filling.delete(Infinity);
    const again = await filling.fill();
    await filling.store.close();
    assert.ok(again > 0);
  });

  it("refuses a session that is too large, and accepts others", async () => {
    const store = new FileStore({ path: place.next(), maxBytes: MIB, maxSessionBytes: 4 * MIB });
    const large = session("large", { blob: "x".repeat(2 * MIB) });
    await assert.rejects(store.create(large), { code: "ERR_STORE_FULL", message: /maxBytes is 1048576/ });
    assert.equal(await store.get("large"), null);
    await store.create(session("small"));
    await assert.rejects(store.update("small", { ...large, sessionId: "small" }), { code: "ERR_STORE_FULL" });
    assert.equal((await store.get("small")).blob, undefined);
    await store.close();
  });
});
