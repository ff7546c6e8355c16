"use strict";

// The redo log and other processes: the command line tool, and stores of a version without a log.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const zlib = require("node:zlib");
const { afterEach, beforeEach, describe, it } = require("node:test");
const { setTimeout: sleep } = require("node:timers/promises");
const { FileStore } = require("..");
const { Bench, linesOf, session } = require("./support/cli.js");
const { startProcess } = require("./support/file-peers.js");
const { makePlace, skip } = require("./support/file-places.js");
const { hashOf, withStore } = require("./support/file-store.js");

const FIXTURES = path.join(__dirname, "fixtures/format-1");
const DEADLINE = 30_000;
const byId = (one, other) => (one.sessionId < other.sessionId ? -1 : 1);
const idsOf = (sessions) => sessions.map(({ sessionId }) => sessionId).sort();

async function sessionsOf(store) {
  const found = [];
  for await (const id of store.ids()) found.push(await store.get(id));
  return found.sort(byId);
}

/**
 * Returns the version of the file format, read from LMDB's file. Versions 2 and 4 need a redo log, 3 and 4 contain
 * creation times.
 */
function formatOf(folder) {
  const PAGE = 4096;
  const file = fs.readFileSync(path.join(folder, "data.mdb"));
  const metas = [0, PAGE].map((at) => file.subarray(at, at + PAGE));
  const txnOf = (meta) => meta.readBigUInt64LE(144);
  const [meta] = metas.sort((one, other) => (txnOf(one) > txnOf(other) ? -1 : 1));
  const root = Number(meta.readBigUInt64LE(128)) * PAGE;
  const page = file.subarray(root, root + PAGE);
  const entries = page.subarray(page.readUInt16LE(14));
  return entries.readUInt32LE(entries.indexOf("format") + "format".length);
}

const NO_LOG = "no log on this system or file system";

/** Writes until the process has exclusive use of the store again, and a log. */
async function becomesExclusive(store) {
  const deadline = Date.now() + DEADLINE;
  for (let at = 0; ; at++) {
    await store.create(session(`later-${at}`, "later"));
    const { mode, sizeBytes } = (await store.stats()).log;
    if (mode === "exclusive" && sizeBytes > 0) return;
    assert.ok(
      Date.now() < deadline,
      `after ${DEADLINE} ms the store is ${mode}, and its log has ${sizeBytes} bytes`,
    );
    await sleep(50);
  }
}

describe("an app that has data in its log, and the command line tool in another process:", { skip }, () => {
  let bench;
  let peer;
  let app;
  const anns = Array.from({ length: 20 }, (_, at) => session(`ann-${at}`, "ann", { cart: [at] }));
  const bobs = Array.from({ length: 10 }, (_, at) => session(`bob-${at}`, "bob"));
  const all = [...anns, ...bobs];

  beforeEach(async () => {
    bench = new Bench();
    peer = await startProcess();
  });
  afterEach(async () => {
    await peer.kill();
    await bench.cleanUp();
  });

  async function openApp() {
    app = await peer.open({ path: bench.storePath });
    // Both changes are only in the log: a create and a delete.
    await app.create(session("ended", "ann"));
    for (const one of all) await app.create(one);
    await app.delete("ended");
    const { log } = await app.stats();
    return log;
  }

  /** Runs the tool while the app writes. It must succeed. */
  async function tool(...args) {
    let isRunning = true;
    const writing = (async () => {
      let written = 0;
      for (; isRunning; written++) {
        await app.create(session("busy", "busy"));
        await app.delete("busy");
      }
      return written;
    })();
    const { code, stdout, stderr } = await bench.run(args);
    isRunning = false;
    const written = await writing;
    assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
    assert.ok(written > 0, "the app could not write");
    return stdout;
  }

  const commands = {
    async list() {
      const lines = linesOf(await tool("list", "--json", "--quiet")).map((line) => JSON.parse(line));
      const found = lines.filter(({ sessionId }) => sessionId !== "busy");
      assert.deepEqual(found.sort(byId), [...all].sort(byId));
      const ofBob = linesOf(await tool("list", "--json", "--quiet", "--user", "bob"));
      assert.deepEqual(
        ofBob.map((line) => JSON.parse(line)),
        bobs,
      );
    },

    async stats() {
      const { live, expired } = JSON.parse(await tool("stats", "--json", "--quiet"));
      // The tool counts the live sessions a moment before it counts all, so "busy" may be in one number alone.
      assert.ok(expired <= 1, `${expired} expired sessions`);
      assert.ok(live === all.length || live === all.length + 1, `${live} sessions`);
    },

    async verify() {
      const { ok, problems } = JSON.parse(await tool("verify", "--json", "--quiet"));
      assert.deepEqual({ ok, problems }, { ok: true, problems: [] });
    },

    async export() {
      const lines = linesOf(await tool("export", "-", "--quiet")).map((line) => JSON.parse(line).session);
      const found = lines.filter(({ sessionId }) => sessionId !== "busy");
      assert.deepEqual(found.sort(byId), [...all].sort(byId));
    },

    async backup() {
      await tool("backup", bench.in("copy"), "--quiet");
      assert.equal(formatOf(bench.in("copy")), 3);
      await withStore({ path: bench.in("copy") }, async (copy) => {
        const found = await sessionsOf(copy);
        assert.deepEqual(idsOf(found.filter(({ sessionId }) => sessionId !== "busy")), idsOf(all));
        assert.deepEqual((await copy.verify()).problems, []);
      });
    },

    async revoke() {
      assert.match(await tool("revoke", "--user", "ann"), /^20 sessions ended/);
      assert.deepEqual(await app.getByUser("ann"), []);
      assert.equal(await app.get("ann-0"), null);
      await app.update("ann-1", session("ann-1", "ann"));
      assert.equal(await app.get("ann-1"), null);
      assert.equal(await app.size(), bobs.length);
      assert.match(await tool("revoke", "--id", "bob-0"), /^1 session ended/);
      assert.equal(await app.get("bob-0"), null);
    },
  };

  for (const [name, run] of Object.entries(commands)) {
    it(`${name} is correct, and the app continues and gets its log back`, async (t) => {
      const log = await openApp();
      if (log === null) return t.skip(NO_LOG);
      assert.equal(log.mode, "exclusive");
      assert.ok(log.usedBytes > 0, "nothing is in the log");
      await run();
      assert.equal(await app.touch("bob-1", Date.now() + 1e6), true);
      await becomesExclusive(app);
      const isLive = name !== "revoke";
      assert.equal((await app.getByUser("ann")).length, isLive ? anns.length : 0);
      await app.close();
      assert.equal(formatOf(bench.storePath), 3);
    });
  }

  it("the tool recovers the log of an app that was killed", async (t) => {
    if ((await openApp()) === null) return t.skip(NO_LOG);
    await peer.kill();
    assert.equal(formatOf(bench.storePath), 4);
    const { code, stdout } = await bench.run(["list", "--json", "--quiet"]);
    assert.equal(code, 0);
    const found = linesOf(stdout).map((line) => JSON.parse(line));
    assert.deepEqual(found.sort(byId), [...all].sort(byId));
    assert.equal(formatOf(bench.storePath), 3);
  });
});

const SECRETS = ["the new secret of the store", "the old secret of the store"];
const FAR = "2200-01-01T00:00:00.000Z";

for (const [name, secret] of [
  ["plain", undefined],
  ["encrypted", SECRETS],
]) {
  describe(`a store of format 1, ${name},`, { skip }, () => {
    const place = makePlace({ onDisk: true });
    const later = secret ? ["under-the-new-secret"] : [];
    const anns = [...Array.from({ length: 20 }, (_, at) => `of-ann-${at}`), ...later];
    const carts = Array.from({ length: 20 }, (_, at) => `cart-${at}`);
    const numbered = Array.from({ length: 10 }, (_, at) => (at + 16).toString(16).repeat(18));
    const ids = [...anns, ...carts, ...numbered].sort();

    function unpack() {
      const folder = place.next();
      fs.mkdirSync(folder);
      const packed = fs.readFileSync(path.join(FIXTURES, `${name}.mdb.gz`));
      fs.writeFileSync(path.join(folder, "data.mdb"), zlib.gunzipSync(packed));
      assert.equal(formatOf(folder), 1);
      return { path: folder, ...(secret && { secret }), sweepInterval: 0 };
    }

    async function check(store, expected = ids) {
      const found = await sessionsOf(store);
      assert.deepEqual(idsOf(found), [...expected].sort());
      assert.equal(await store.size(), expected.length);
      assert.deepEqual((await store.verify()).problems, []);
      return new Map(found.map((one) => [one.sessionId, one]));
    }

    it("is opened in place, with all of its sessions", async () => {
      await withStore(unpack(), async (store) => {
        const found = await check(store);
        for (const [at, id] of carts.entries()) {
          assert.deepEqual(found.get(id), {
            sessionId: id,
            expires: FAR,
            userId: at % 2 ? `user-${at}` : null,
            cart: [at, "é"],
            note: "x".repeat(50 * at),
          });
        }
        assert.deepEqual(
          (await store.getByUser("ann")).map(({ sessionId }) => sessionId),
          anns,
        );
        assert.deepEqual(idsOf(await store.getByUser(42)), numbered);
        assert.deepEqual(
          (await store.getByUser("user-3")).map(({ sessionId }) => sessionId),
          ["cart-3"],
        );
        assert.equal(await store.get("expired-0"), null);
      });
    });

    it("is written to, with a log, and needs none after a clean close", async (t) => {
      const options = unpack();
      let expected = [...carts.filter((id) => id !== "cart-3"), ...numbered, "of-ann-0", "new"];
      await withStore(options, async (store) => {
        await store.create(session("new", "ann"));
        await store.create(session("expired-1", "ann"));
        await store.delete("expired-1");
        await store.delete("cart-3");
        await store.update("of-ann-0", session("of-ann-0", "bob", { cart: "full" }));
        assert.equal(await store.deleteByUser("ann", { except: "new" }), anns.length - 1);
        assert.equal(await store.touch("cart-4", Date.now() + 1e6), true);
        const { log } = await store.stats();
        if (log === null) t.diagnostic(NO_LOG);
        else assert.equal(formatOf(options.path), 4, "a version without a log could open it");
        const found = await check(store, expected);
        assert.equal(found.get("of-ann-0").cart, "full");
        await store.clean();
        assert.equal((await store.stats()).sessions, expected.length, "expired sessions are left");
        await check(store, expected);
      });
      assert.equal(formatOf(options.path), 3);
      await withStore(options, async (store) => {
        await check(store, expected);
        assert.equal(await store.deleteByUser(42), numbered.length);
        expected = expected.filter((id) => !numbered.includes(id));
      });
      assert.equal(formatOf(options.path), 3);
      await withStore({ ...options, readOnly: true }, (store) => check(store, expected));
    });

    it("counts the lifetime of its sessions from their first write", async () => {
      const options = { ...unpack(), maxLifetime: 3_600_000 };
      const endOf = async (store, id) => Date.parse((await store.get(id)).expires);
      let [before, after] = [0, 0];
      await withStore(options, async (store) => {
        assert.equal((await store.get("cart-4")).expires, FAR);
        before = Date.now();
        assert.equal(await store.touch("cart-4", FAR), true);
        await store.update("of-ann-0", session("of-ann-0", "ann", { expires: FAR, cart: "full" }));
        after = Date.now();
        await check(store);
      });
      await withStore(options, async (store) => {
        for (const id of ["cart-4", "of-ann-0"]) {
          await store.touch(id, FAR);
          const end = await endOf(store, id);
          assert.ok(end >= before + 3_600_000 && end <= after + 3_600_000, `${id} ends at ${end}`);
        }
        assert.equal((await store.get("cart-5")).expires, FAR);
        await check(store);
      });
    });

    /** A store whose process was killed, with all of its writes in the log. */
    async function kill(t) {
      const options = unpack();
      const peer = await startProcess();
      const store = await peer.open(options);
      await store.create(session("new", "ann"));
      await store.delete("of-ann-0");
      const { log } = await store.stats();
      await peer.kill();
      if (log === null) t.skip(NO_LOG);
      else assert.equal(formatOf(options.path), 4);
      const expected = [...ids.filter((id) => id !== "of-ann-0"), "new"];
      return { options, expected, isLogged: log !== null };
    }

    it("has format 4 after a kill, and loses nothing", async (t) => {
      const { options, expected, isLogged } = await kill(t);
      if (!isLogged) return;
      await withStore(options, (store) => check(store, expected));
      assert.equal(formatOf(options.path), 3);
    });

    it("is recovered by a reader after a kill", async (t) => {
      const { options, expected, isLogged } = await kill(t);
      if (!isLogged) return;
      await withStore({ ...options, readOnly: true }, (store) => check(store, expected));
      assert.equal(formatOf(options.path), 3);
    });

    it("is not changed after a kill by a process with another secret", async (t) => {
      const { options, expected, isLogged } = await kill(t);
      if (!isLogged) return;
      const hashes = () => [
        hashOf(options.path),
        fs.readFileSync(path.join(options.path, "redo.log")).toString("hex"),
      ];
      const before = hashes();
      const other = { ...options, secret: secret ? "some other secret of some length" : SECRETS };
      for (const readOnly of [false, true]) {
        assert.throws(() => new FileStore({ ...other, readOnly }), /secret/);
        assert.deepEqual(hashes(), before);
      }
      await withStore(options, (store) => check(store, expected));
    });
  });
}
