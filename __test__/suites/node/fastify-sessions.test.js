// Sessions as several versions of @fastify/session make them of what a ConnectStore loads.

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { MemoryStore } = require("@fluidauth/native-store");
const { ConnectStore } = require("@fluidauth/native-store/connect");

const HOUR = 3_600_000;
const COOKIE = { secure: false, maxAge: HOUR };
const signer = { sign: (id) => id };

for (const [name, carriesMarks] of [
  ["@fastify/session-10", false],
  ["@fastify/session-11.1.1", false],
  ["@fastify/session", true],
]) {
  const { version } = require(`${name}/package.json`);
  const Session = require(`${name}/lib/session.js`);

  describe(`@fastify/session ${version}`, () => {
    const begin = (store) => new Session(store, {}, () => "an id", COOKIE, signer);
    const load = (store) =>
      new Promise((resolve, reject) => {
        store.get("an id", (error, kept) => {
          if (error || !kept) return reject(error ?? new Error("no session"));
          resolve(new Session(store, {}, () => "an id", COOKIE, signer, kept, "an id"));
        });
      });

    async function loggedIn() {
      const store = new ConnectStore(new MemoryStore());
      const session = begin(store);
      session.user = "ada";
      await session.save();
      return store;
    }

    it("does not bring back a session that has ended", async () => {
      const store = await loggedIn();
      const session = await load(store);
      session.step = 2;
      await new ConnectStore(store.store).destroy("an id");
      if (carriesMarks) await session.save();
      else await assert.rejects(session.save(), { code: "ERR_SESSION_ENDED" });
      assert.equal(await store.get("an id"), null);
    });

    it("may make the same id again, or is told that it may not", async () => {
      const store = await loggedIn();
      await (await load(store)).destroy().catch(() => {});
      const session = begin(store);
      session.user = "grace";
      if (carriesMarks) {
        await session.save();
        assert.equal((await store.get("an id")).user, "grace");
      } else {
        await assert.rejects(session.save(), { code: "ERR_SESSION_ENDED" });
        assert.equal(await store.get("an id"), null);
      }
    });

    it("may end a session sooner, whether it is changed or not", async () => {
      for (const isChanged of [false, true]) {
        const store = await loggedIn();
        const session = await load(store);
        const end = new Date(Date.now() + HOUR / 2);
        session.cookie.expires = end;
        if (isChanged) session.step = 2;
        await session.save();
        assert.equal((await store.store.get("an id")).expires, end.toISOString());
      }
    });

    it("does not end a session sooner that something else gave a longer life", async () => {
      const store = await loggedIn();
      const end = new Date(Date.now() + 30 * HOUR);
      await store.store.touch("an id", end);
      await (await load(store)).save();
      assert.equal((await store.store.get("an id")).expires, end.toISOString());
    });
  });
}
