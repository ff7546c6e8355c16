// What ConnectStore does under fake timers and in the realm of a runner.

const assert = require("node:assert/strict");
const { MemoryStore } = require("@fluidauth/native-store");
const { ConnectStore } = require("@fluidauth/native-store/connect");
const { isOwnArray } = require("./realm.js");
const { soon } = require("./soon.js");

const HOUR = 3_600_000;
const lasting = () => ({ originalMaxAge: HOUR, expires: new Date(Date.now() + HOUR) });

/** @param runner as in stores.js */
function connectCases({ describe, it, fake }) {
  describe("ConnectStore", () => {
    const test = (title, body) =>
      it(title, async () => {
        const store = new ConnectStore(new MemoryStore(), { userId: (session) => session.user });
        const call = (method, ...args) =>
          soon(
            new Promise((resolve, reject) => {
              store[method](...args, (error, value) => (error ? reject(error) : resolve(value)));
            }),
          );
        try {
          await body(store, call);
        } finally {
          fake.restore();
          await store.close();
        }
      });

    test("calls back while all timers are faked", async (_store, call) => {
      fake.use();
      await call("set", "a", { cookie: lasting(), user: "ada" });
      const session = await call("get", "a");
      assert.equal(session.user, "ada");
      await call("touch", "a", session);
      assert.deepStrictEqual(await call("ids"), ["a"]);
      assert.equal(await call("length"), 1);
      assert.deepStrictEqual(Object.keys(await call("all")), ["a"]);
      assert.equal((await call("getByUser", "ada")).length, 1);
      assert.equal(await call("destroyByUser", "ada", {}), 1);
      await call("destroy", "a");
      await call("clear");
      await call("close");
    });

    test("resolves while all timers are faked", async (store) => {
      fake.use();
      await soon(store.set("a", { cookie: lasting(), user: "ada" }));
      assert.equal((await soon(store.get("a"))).user, "ada");
    });

    test("gives arrays and errors of the test's own realm", async (store) => {
      await store.set("a", { cookie: lasting(), user: "ada" });
      for (const list of [await store.ids(), await store.getByUser("ada"), await store.getByUser("nobody")]) {
        assert.ok(isOwnArray(list));
      }
      assert.deepStrictEqual(await store.getByUser("nobody"), []);
      const error = await store.set("", { cookie: {} }).catch((refused) => refused);
      assert.ok(error instanceof Error);
    });
  });
}

module.exports = { connectCases, lasting };
