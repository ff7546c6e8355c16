"use strict";

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { MemoryStore, SessionStoreError } = require("..");

const refuses = (options, words) =>
  assert.throws(
    () => new MemoryStore(options),
    (error) => {
      assert.ok(error instanceof SessionStoreError, error?.stack);
      assert.equal(error.code, "ERR_INVALID_OPTION");
      assert.match(error.message, words);
      return true;
    },
  );

describe("options of MemoryStore", () => {
  it("may all be left out, or be undefined", async () => {
    for (const options of [undefined, {}, { maxSessions: undefined, name: undefined }]) {
      await new MemoryStore(options).close();
    }
  });

  it("take the values that they document", async () => {
    const store = new MemoryStore({
      maxSessionBytes: 1,
      maxSessionsPerUser: Number.MAX_SAFE_INTEGER,
      maxSessions: 1,
      maxBytes: Number.MAX_SAFE_INTEGER,
      sweepInterval: 0,
      name: "é 😀",
    });
    assert.deepEqual(store.db, { type: "memory", name: "é 😀" });
    await store.close();
  });

  for (const limit of ["maxSessionBytes", "maxSessionsPerUser", "maxSessions", "maxBytes"]) {
    it(`refuse a ${limit} that is no whole number from 1`, () => {
      for (const value of [0, -1, 1.5, NaN, Infinity, 2 ** 53]) {
        refuses(
          { [limit]: value },
          new RegExp(`^${limit} must be a whole number from 1 to .+; got ${value}$`),
        );
      }
      for (const value of ["10", null, 10n, true, {}, [10], () => 10]) {
        refuses({ [limit]: value }, new RegExp(`^${limit} must be a whole number`));
      }
    });
  }

  it("refuse a sweepInterval that is no whole number from 0", () => {
    for (const value of [-1, 0.5, NaN, Infinity, "60000", null])
      refuses({ sweepInterval: value }, /^sweepInterval/);
  });

  it("refuse a name that is no text", () => {
    for (const value of ["", 1, null, {}, "\ud800"])
      refuses({ name: value }, /^name must be a non-empty string/);
  });

  it("name the likely spelling of an unknown option", () => {
    for (const [given, meant] of [
      ["maxSession", "maxSessions"],
      ["maxsessions", "maxSessions"],
      ["max_sessions", "maxSessions"],
      ["maxByte", "maxBytes"],
      ["maxSessionsPerUsers", "maxSessionsPerUser"],
      ["sweepIntervall", "sweepInterval"],
      ["nmae", "name"],
    ]) {
      refuses({ [given]: 1 }, new RegExp(`^unknown option "${given}": did you mean ${meant}\\?$`));
    }
  });

  it("list the options where none is likely", () => {
    refuses({ ttl: 1 }, /^unknown option "ttl": the options are .*maxSessions/);
    refuses({ __proto__: null, constructor: 1 }, /^unknown option "constructor"/);
  });

  it("refuse what is no object", () => {
    for (const options of [null, 1, "x", [], true, () => {}])
      refuses(options, /^options must be an object; got /);
  });
});

describe("named stores", () => {
  it("are one store", async () => {
    const [one, twin, other] = ["one", "one", "other"].map((name) => new MemoryStore({ name }));
    await one.create({ sessionId: "a", userId: "ann", expires: new Date(Date.now() + 1e6) });
    await one.close();
    assert.equal(await twin.size(), 1);
    assert.equal(await other.size(), 0);
    await Promise.all([twin.close(), other.close()]);
    const reopened = new MemoryStore({ name: "one" });
    assert.equal(await reopened.size(), 0);
    await reopened.close();
  });

  it("are opened with the same limits, or with none", async () => {
    const store = new MemoryStore({ name: "limits", maxSessions: 10 });
    for (const options of [{ name: "limits" }, { name: "limits", maxSessions: 10 }]) {
      await new MemoryStore(options).close();
    }
    refuses(
      { name: "limits", maxSessions: 11 },
      /^maxSessions must be 10, as the open store of this name has it; got 11$/,
    );
    refuses({ name: "limits", maxBytes: 11 }, /^maxBytes must be left out, as the open store/);
    refuses({ name: "limits", sweepInterval: 1 }, /^sweepInterval must be 60000/);
    await store.close();
  });
});

describe("limits of MemoryStore", () => {
  const session = (sessionId, userId) => ({ sessionId, userId, expires: Date.now() + 1e6 });
  const ids = async (store) => {
    const all = [];
    for await (const id of store.ids()) all.push(id);
    return all.sort();
  };

  it("end the least recently used session", async () => {
    const store = new MemoryStore({ maxSessions: 2 });
    for (const id of ["a", "b"]) await store.create(session(id, "ann"));
    await store.get("a");
    await store.create(session("c", "ben"));
    assert.deepEqual(await ids(store), ["a", "c"]);
    assert.equal((await store.stats()).evicted, 1);
  });

  it("never end a user's session for an anonymous one", async () => {
    const store = new MemoryStore({ maxSessions: 1 });
    await store.create(session("visitor", null));
    await store.create(session("a", "ann"));
    await assert.rejects(store.create(session("visitor", null)), { code: "ERR_STORE_FULL" });
    assert.deepEqual(await ids(store), ["a"]);
  });

  it("keep the bytes within maxBytes", async () => {
    const store = new MemoryStore({ maxBytes: 10_000 });
    for (let at = 0; at < 1000; at++) await store.create(session(`session ${at}`, "ann"));
    const { bytes, sessions } = await store.stats();
    assert.ok(bytes <= 10_000 && sessions > 50, `${sessions} sessions in ${bytes} bytes`);
    await assert.rejects(store.create({ ...session("large"), data: "x".repeat(10_000) }), {
      code: "ERR_STORE_FULL",
    });
    assert.equal((await store.stats()).sessions, sessions);
  });
});
