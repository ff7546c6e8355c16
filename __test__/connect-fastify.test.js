"use strict";

// A ConnectStore in an app on @fastify/session.

const assert = require("node:assert/strict");
const { after, afterEach, beforeEach, describe, it } = require("node:test");
const Fastify = require("fastify");
const { FileStore, MemoryStore } = require("..");
const { ConnectStore } = require("../connect.js");
const { assertKnowsLastUse } = require("./support/last-use.js");
const { assertKeepsOtherSave } = require("./support/unchanged-save.js");
const { makePlace } = require("./support/file-places.js");
const { makeRedisPlace } = require("./support/redis-places.js");
const { redisMissing } = require("./support/redis-servers.js");

const SECRET = "a secret for tests, and for nothing else";
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const { next: newFolder } = makePlace();
const redis = makeRedisPlace();

/** An app with one handler; `ask` sends a request, with the cookies of a jar if one is given. */
async function serve(store, options, handler) {
  const app = Fastify();
  app.register(require("@fastify/cookie"));
  app.register(require("@fastify/session"), { secret: SECRET, store, cookie: { secure: false }, ...options });
  app.get("/*", handler);
  await app.ready();
  after(() => app.close());
  return async function ask(url, jar = {}) {
    const answer = await app.inject({ url, cookies: jar.cookies ?? {} });
    for (const { name, value } of answer.cookies) jar.cookies = { [name]: value };
    return { status: answer.statusCode, body: answer.body, setCookies: answer.cookies };
  };
}

/** Loses the marks of loaded sessions. For example a store that decrypts them. */
class Copying extends ConnectStore {
  get(sid, callback) {
    if (callback === undefined) return super.get(sid);
    super.get(sid, (error, kept) => callback(error, kept && JSON.parse(JSON.stringify(kept))));
  }
}

const sidOf = ({ cookies }) => cookies.sessionId.split(".")[0];

for (const [name, createStore, skip] of [
  ["MemoryStore", (options) => new MemoryStore(options)],
  ["FileStore", (options) => new FileStore({ path: newFolder(), ...options })],
  ["RedisStore", (options) => redis.open(options), redisMissing],
]) {
  describe(`an app on @fastify/session over ${name}`, { skip }, () => {
    let store;
    beforeEach(() => {
      store = new ConnectStore(createStore());
    });
    afterEach(() => store.close());

    const counter = async ({ session }) => {
      session.views = (session.views ?? 0) + 1;
      return `${session.views}`;
    };

    it("refuses a login of a user who is full, and keeps the user's sessions", async () => {
      const options = { maxSessionsPerUser: 1, whenUserIsFull: "reject" };
      const limited = new ConnectStore(createStore(options), { userId: ({ user }) => user });
      const ask = await serve(limited, {}, async ({ url, session }) => {
        if (url === "/login") {
          session.user = "ada";
          await session.save();
        }
        return session.user ?? "nobody";
      });
      const [first, late] = [{}, {}];
      assert.equal((await ask("/login", first)).body, "ada");
      const refused = await ask("/login", late);
      assert.equal(refused.status, 500);
      assert.equal(JSON.parse(refused.body).code, "ERR_TOO_MANY_SESSIONS");
      assert.equal((await ask("/me", first)).body, "ada");
      assert.equal((await limited.getByUser("ada")).length, 1);
      await limited.close();
    });

    it("keeps its sessions", async () => {
      const ask = await serve(store, {}, counter);
      const [one, other] = [{}, {}];
      for (const views of ["1", "2", "3"]) assert.equal((await ask("/", one)).body, views);
      assert.equal((await ask("/", other)).body, "1");
      assert.equal(await store.length(), 2);
    });

    it("keeps the lifetime of their cookies", async () => {
      const ask = await serve(store, { cookie: { secure: false, maxAge: HOUR } }, counter);
      const jar = {};
      await ask("/", jar);
      const [{ expires }] = (await ask("/", jar)).setCookies;
      const kept = await store.get(sidOf(jar));
      assert.equal(kept.cookie.originalMaxAge, HOUR);
      assert.ok(Math.abs(expires - new Date(kept.cookie.expires)) < 1000);
    });

    it("never adopts an id from outside", async () => {
      const ask = await serve(store, {}, counter);
      const jar = {};
      await ask("/", jar);
      const sid = sidOf(jar);
      await store.destroy(sid);
      assert.equal((await ask("/", jar)).body, "1");
      assert.notEqual(sidOf(jar), sid);
      assert.equal((await ask("/", { cookies: { sessionId: "mine.signature" } })).body, "1");
      assert.equal(await store.get("mine"), null);
    });

    for (const [what, cookie] of [
      ["lasts", { secure: false, maxAge: HOUR }],
      ["ends with the browser", { secure: false }],
    ]) {
      it(`knows when a session was last used whose cookie ${what}`, async () => {
        const ask = await serve(store, { cookie }, async ({ session }) => {
          session.user = "ada";
          return "";
        });
        const jar = {};
        await assertKnowsLastUse(store, () => ask("/", jar));
      });
    }

    it("replaces a session by a new one, which keeps the named fields", async () => {
      const ask = await serve(store, {}, async ({ session, url }) => {
        if (url === "/") session.cart = ["tea"];
        else await session.regenerate(["cart"]);
        return session.cart;
      });
      const jar = {};
      await ask("/", jar);
      for (let round = 0; round < 3; round++) {
        const before = sidOf(jar);
        assert.equal((await ask("/new", jar)).body, '["tea"]');
        assert.notEqual(sidOf(jar), before);
        assert.deepEqual(await store.ids(), [sidOf(jar)]);
      }
    });

    it("stores what a request changes after it has saved its session", async () => {
      const ask = await serve(store, {}, async (request) => {
        const { url, session } = request;
        if (url === "/login") {
          session.user = "ada";
        } else if (url === "/renew") {
          await session.regenerate(["user"]);
          delete request.session.user;
        } else if (url === "/count") {
          session.views = 1;
          const saved = session.save();
          session.views = 2;
          await saved;
        } else if (url === "/quiet") {
          const saved = session.save();
          session.views = 3;
          await saved;
        }
        return `${request.session.user} ${request.session.views}`;
      });
      const jar = {};
      await ask("/login", jar);
      assert.equal((await ask("/", jar)).body, "ada undefined");
      await ask("/renew", jar);
      assert.equal((await ask("/", jar)).body, "undefined undefined");
      await ask("/count", jar);
      assert.equal((await ask("/", jar)).body, "undefined 2");
      await ask("/quiet", jar);
      assert.equal((await ask("/", jar)).body, "undefined 3");
    });

    it("stores what a request changes during a save without changes, also if its session has lost its mark", async () => {
      store = new Copying(store.store);
      const ask = await serve(store, {}, async ({ session, url }) => {
        if (url === "/first") session.views = 1;
        if (url !== "/quiet") return session.views;
        const saved = session.save();
        session.views = 2;
        await saved;
        return session.views;
      });
      const jar = {};
      await ask("/first", jar);
      await ask("/quiet", jar);
      assert.equal((await ask("/", jar)).body, "2");
    });

    it("saves, reloads and ends a session", async () => {
      const ask = await serve(store, {}, async (request) => {
        const { session, url } = request;
        if (url === "/out") {
          await session.destroy();
          return "out";
        }
        session.user = "ada";
        await session.save();
        await session.save();
        await session.reload();
        return request.session.user;
      });
      const jar = {};
      assert.equal((await ask("/", jar)).body, "ada");
      assert.equal((await store.get(sidOf(jar))).user, "ada");
      assert.equal((await ask("/out", jar)).body, "out");
      assert.equal(await store.length(), 0);
    });

    it("does not save a session a second time that was ended while a request ran", async () => {
      const ended = new ConnectStore(store.store);
      const ask = await serve(store, {}, async ({ session, url }) => {
        session.user = "ada";
        if (url !== "/slow") return "";
        await session.save();
        await ended.destroy(session.sessionId);
        await session.save();
        return "";
      });
      const jar = {};
      await ask("/", jar);
      await ask("/slow", jar);
      await ask("/slow");
      assert.equal(await store.length(), 0);
    });

    it("does not undo a concurrent save by a request without changes", async () => {
      await assertKeepsOtherSave(store, sidOf, (answer) =>
        serve(store, { cookie: { secure: false, maxAge: HOUR } }, ({ session, url }) => answer(url, session)),
      );
    });

    it("does not undo a concurrent save by a request that saves twice without changes", async () => {
      const options = { cookie: { secure: false, maxAge: HOUR } };
      // With a `get` of the app, the store does not know the text of a record.
      const opaque = createStore();
      opaque.get = (id) => Object.getPrototypeOf(opaque).get.call(opaque, id);
      const stores = [store, new Copying(store.store), new ConnectStore(opaque)];
      for (const each of stores) {
        await assertKeepsOtherSave(each, sidOf, (answer) =>
          serve(each, options, async ({ session, url }) => {
            if (url === "/slow") await session.save();
            return answer(url, session);
          }),
        );
      }
      await opaque.close();
    });

    it("writes nothing for a request that comes within touchAfter", async () => {
      store = new ConnectStore(store.store, { touchAfter: HOUR / 10 });
      const ask = await serve(
        store,
        { cookie: { secure: false, maxAge: HOUR } },
        async ({ session, url }) => {
          if (url === "/") session.user = "ada";
          return session.user;
        },
      );
      const jar = {};
      await ask("/", jar);
      const { expires } = await store.store.get(sidOf(jar));
      await new Promise((resolve) => setTimeout(resolve, 5));
      assert.equal((await ask("/again", jar)).body, "ada");
      assert.equal((await store.store.get(sidOf(jar))).expires, expires);
    });

    it("accepts that a request shortens the session", async () => {
      const options = { cookie: { secure: false, maxAge: HOUR } };
      for (const more of [{}, { touchAfter: HOUR }]) {
        store = new ConnectStore(store.store, more);
        const ask = await serve(store, options, async ({ session, url }) => {
          session.user ??= "ada";
          if (url === "/short") session.cookie.expires = new Date(Date.now() + MINUTE);
          return "";
        });
        const jar = {};
        await ask("/", jar);
        const [{ expires }] = (await ask("/short", jar)).setCookies;
        const end = Date.parse((await store.store.get(sidOf(jar))).expires);
        assert.ok(end <= Date.now() + MINUTE);
        assert.ok(Math.abs(expires - end) < 1000);
      }
    });

    it("keeps a later expiry that others have set", async () => {
      const options = { cookie: { secure: false, maxAge: HOUR } };
      const ask = await serve(store, options, async ({ session, url }) => {
        if (url === "/") session.user = "ada";
        return "";
      });
      const jar = {};
      await ask("/", jar);
      const end = new Date(Date.now() + 30 * HOUR);
      await store.store.touch(sidOf(jar), end);
      await ask("/again", jar);
      assert.equal((await store.store.get(sidOf(jar))).expires, end.toISOString());
    });

    it("may generate the same id for a new session", async () => {
      const idGenerator = () => "of this device";
      for (const regenerates of [false, true]) {
        const ask = await serve(store, { idGenerator }, async (request) => {
          const { session, url } = request;
          if (url === "/out") {
            await session.destroy();
            return "out";
          }
          if (url === "/in") {
            if (regenerates) await session.regenerate();
            request.session.user = "ada";
          }
          return request.session.user ?? "nobody";
        });
        const jar = {};
        for (let round = 0; round < 3; round++) {
          assert.equal((await ask("/in", jar)).body, "ada");
          assert.equal((await ask("/out", jar)).body, "out");
          assert.equal((await ask("/in", jar)).body, "ada");
          assert.equal((await ask("/in", jar)).body, "ada");
          assert.equal((await ask("/", jar)).body, "ada");
          assert.equal((await ask("/out", jar)).body, "out");
          assert.equal((await ask("/", jar)).body, "nobody");
        }
      }
    });

    it("does not bring back an id that may be reused through a loaded session", async () => {
      const ended = new ConnectStore(store.store);
      const ask = await serve(store, { idGenerator: () => "of this device" }, async ({ session, url }) => {
        session.user = url;
        if (url !== "/slow") return "";
        await store.destroy(session.sessionId);
        await ended.destroy(session.sessionId);
        return "";
      });
      const jar = {};
      await ask("/", jar);
      assert.equal((await ask("/slow", jar)).status, 200);
      assert.equal(await store.length(), 0);
    });

    it("rejects instead of guessing if a session with the same id has lost its mark", async () => {
      store = new Copying(store.store);
      const ended = new ConnectStore(store.store);
      const ask = await serve(store, { idGenerator: () => "of this device" }, async ({ session, url }) => {
        session.user = url;
        if (url === "/slow") await ended.destroy(session.sessionId);
        return "";
      });
      const jar = {};
      await ask("/", jar);
      const { status, body } = await ask("/slow", jar);
      assert.equal(status, 500);
      assert.match(body, /ERR_SESSION_ENDED/);
      assert.equal(await store.length(), 0);
    });

    it("does not take a session for new that has lost its mark, even at the start of the handler", async () => {
      store = new Copying(store.store);
      const ask = await serve(store, {}, async ({ session, url }) => {
        session.user = url;
        await session.save();
        return "";
      });
      const jar = {};
      await ask("/", jar);
      store.store.create = () => assert.fail("created again");
      assert.equal((await ask("/again", jar)).status, 200);
      assert.equal((await store.get(sidOf(jar))).user, "/again");
    });

    it("receives the store's errors", async () => {
      const ask = await serve(store, {}, counter);
      const jar = {};
      await ask("/", jar);
      await store.close();
      for (const who of [jar, {}]) {
        const { status, body } = await ask("/", who);
        assert.equal(status, 500);
        assert.match(body, /ERR_STORE_CLOSED/);
      }
    });
  });
}
