// What the stores do under fake timers, by a faked Date and in the realm of a runner.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { FileStore, MemoryStore, SessionStoreError } = require("@fluidauth/native-store");
const { isOwnArray } = require("./realm.js");
const { soon } = require("./soon.js");

const HOUR = 3_600_000;
const TIMES = { past: Date.UTC(2022, 0, 1), future: Date.UTC(2099, 0, 1) };

// The caller removes it with TMPDIR: not every runner has an end of the process.
const folder = fs.mkdtempSync(path.join(os.tmpdir(), "native-store-suite-"));
let made = 0;

const STORES = {
  MemoryStore: () => new MemoryStore(),
  FileStore: () => new FileStore({ path: path.join(folder, `${process.pid}-${++made}`) }),
};

const session = (sessionId) => ({ sessionId, userId: "ada", expires: new Date(Date.now() + HOUR) });

/** @param runner `{ describe, it, fake }`: `fake` has `use({ now })`, `setTime(time)` and `restore()`. */
function storeCases({ describe, it, fake }) {
  for (const [name, createStore] of Object.entries(STORES)) {
    describe(name, () => {
      const test = (title, body) =>
        it(title, async () => {
          const store = createStore();
          try {
            await body(store);
          } finally {
            fake.restore();
            await store.close();
          }
        });

      test("settles each call while all timers are faked", async (store) => {
        fake.use();
        for (const sessionId of ["a", "b"]) await soon(store.create(session(sessionId)));
        await soon(store.update("a", { ...session("a"), step: 2 }));
        assert.equal((await soon(store.get("a"))).step, 2);
        assert.equal(await soon(store.touch("a", new Date(Date.now() + 2 * HOUR))), true);
        assert.equal((await soon(store.getByUser("ada"))).length, 2);
        assert.equal(await soon(store.size()), 2);
        await soon(store.delete("b"));
        await soon(store.clean());
        assert.equal(typeof (await soon(store.stats())).sessions, "number");
        assert.equal(await soon(store.deleteByUser("ada")), 1);
        await soon(store.clear());
        await soon(store.close());
      });

      test("settles many calls at once while all timers are faked", async (store) => {
        fake.use();
        const ids = Array.from({ length: 1000 }, (_, at) => `id-${at}`);
        await soon(Promise.all(ids.map((sessionId) => store.create(session(sessionId)))));
        const seen = [];
        const read = async () => {
          for await (const id of store.ids()) seen.push(id);
        };
        await soon(read());
        assert.equal(seen.length, ids.length);
      });

      for (const [when, now] of Object.entries(TIMES)) {
        test(`ends its sessions by a Date that is faked to the ${when}`, async (store) => {
          fake.use({ now });
          await soon(store.create(session("a")));
          assert.notEqual(await soon(store.get("a")), null);
          assert.equal(await soon(store.size()), 1);
          // The store adds the offset of the faked time to the machine's clock, which goes on.
          fake.setTime(now + HOUR - 60_000);
          assert.notEqual(await soon(store.get("a")), null);
          fake.setTime(now + HOUR + 1);
          assert.equal(await soon(store.get("a")), null);
          assert.equal(await soon(store.touch("a", new Date(Date.now() + HOUR))), false);
          assert.equal(await soon(store.size()), 0);
          assert.equal((await soon(store.getByUser("ada"))).length, 0);
          await soon(store.create(session("a")));
          assert.notEqual(await soon(store.get("a")), null);
        });
      }

      test("gives arrays and errors of the test's own realm", async (store) => {
        assert.ok(isOwnArray(await store.getByUser("nobody")));
        assert.deepStrictEqual(await store.getByUser("nobody"), []);
        await store.create(session("a"));
        assert.ok(isOwnArray(await store.getByUser("ada")));
        if (store.verify) assert.deepStrictEqual((await store.verify()).problems, []);
        const error = await store.create(session("a")).catch((refused) => refused);
        assert.ok(error instanceof Error && error instanceof SessionStoreError);
      });
    });
  }
}

module.exports = { HOUR, STORES, TIMES, storeCases };
