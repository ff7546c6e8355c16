"use strict";

// A ConnectStore in an app on express-session.

const assert = require("node:assert/strict");
const { createHmac } = require("node:crypto");
const { once } = require("node:events");
const { after, afterEach, beforeEach, describe, it } = require("node:test");
const express = require("express");
const session = require("express-session");
const passport = require("passport");
const { Strategy } = require("passport-local");
const { FileStore, MemoryStore } = require("..");
const { ConnectStore } = require("../connect.js");
const { assertKnowsLastUse } = require("./support/last-use.js");
const { assertKeepsOtherSave } = require("./support/unchanged-save.js");
const { makePlace } = require("./support/file-places.js");
const { makeRedisPlace } = require("./support/redis-places.js");
const { redisMissing } = require("./support/redis-servers.js");
const { later } = require("./support/later.js");

const SECRET = "a secret for tests";
const HOUR = 3_600_000;
const { next: newFolder } = makePlace();
const redis = makeRedisPlace();

const OPTIONS = { secret: SECRET, resave: false, saveUninitialized: false };

/** Serves one handler behind express-session; `ask` sends a request, with the cookies of a jar if one is given. */
async function serve(store, options, handler) {
  const app = express();
  app.use(session({ ...OPTIONS, ...options, store }));
  app.use(handler);
  app.use((error, _req, res, next) => {
    if (res.headersSent) return next(error);
    res.status(500).end(`${error.code ?? error.name}: ${error.message}`);
  });
  app.set("env", "test");
  const server = app.listen(0, "127.0.0.1");
  after(() => server.close());
  await once(server, "listening");
  return async function ask(path, jar = {}) {
    const headers = { connection: "close", ...(jar.cookie && { cookie: jar.cookie }) };
    const answer = await fetch(`http://127.0.0.1:${server.address().port}${path}`, { headers });
    const [cookie] = answer.headers.getSetCookie();
    if (cookie) [jar.cookie] = cookie.split(";");
    return { status: answer.status, body: await answer.text(), setCookie: cookie };
  };
}

const sidOf = ({ cookie }) => decodeURIComponent(cookie.split("=")[1]).slice(2).split(".")[0];

/** A jar with the cookie of a session that the test has chosen. */
function jarOf(sid) {
  const signature = createHmac("sha256", SECRET).update(sid).digest("base64").replace(/=+$/, "");
  return { cookie: `connect.sid=${encodeURIComponent(`s:${sid}.${signature}`)}` };
}

for (const [name, createStore, skip] of [
  ["MemoryStore", (options) => new MemoryStore(options)],
  ["FileStore", (options) => new FileStore({ path: newFolder(), ...options })],
  ["RedisStore", (options) => redis.open(options), redisMissing],
]) {
  describe(`an app on express-session over ${name}`, { skip }, () => {
    let store;
    beforeEach(() => {
      store = new ConnectStore(createStore());
    });
    afterEach(() => store.close());

    const counter = (req, res) => {
      req.session.views = (req.session.views ?? 0) + 1;
      res.end(`${req.session.views}`);
    };

    describe('with whenUserIsFull: "reject"', () => {
      const limits = { maxSessionsPerUser: 2, whenUserIsFull: "reject" };
      const userId = ({ user }) => user;
      const full = /^ERR_TOO_MANY_SESSIONS: the user already has 2 live sessions/;
      let limited;
      beforeEach(() => {
        limited = new ConnectStore(createStore(limits), { userId });
      });
      afterEach(() => limited.close());

      /** Logs a user in, and answers once that is stored. */
      const login = (req, res, next) => {
        req.session.user = "ada";
        req.session.save((error) => (error ? next(error) : res.end("in")));
      };

      async function assertLimits(ask) {
        const jars = [{}, {}];
        for (const jar of jars) assert.equal((await ask("/login", jar)).body, "in");
        const late = {};
        await ask("/visit", late);
        const refused = await ask("/login", late);
        assert.equal(refused.status, 500);
        assert.match(refused.body, full);
        assert.equal((await ask("/me", late)).body, "nobody");
        for (const jar of jars) assert.equal((await ask("/me", jar)).body, "ada");
        assert.equal((await limited.getByUser("ada")).length, 2);
        await ask("/logout", jars[0]);
        assert.equal((await ask("/login", late)).body, "in");
        assert.equal((await ask("/me", late)).body, "ada");
      }

      const routes = (logIn) => (req, res, next) => {
        if (req.path === "/login") return logIn(req, res, next);
        if (req.path === "/logout") return req.session.destroy((error) => (error ? next(error) : res.end()));
        if (req.path === "/visit") req.session.seen = true;
        res.end(req.session.user ?? "nobody");
      };

      it("a login by regenerate fails with the error, and the user's sessions stay", async () => {
        const renew = (req, res, next) =>
          req.session.regenerate((error) => (error ? next(error) : login(req, res, next)));
        await assertLimits(await serve(limited, {}, routes(renew)));
      });

      it("so does one in the visitor's session, which stays as it was", async () => {
        const ask = await serve(limited, {}, routes(login));
        await assertLimits(ask);
      });

      it("is saved once and sends no cookie if the route responds and drops the session", async (t) => {
        const set = t.mock.method(limited, "set");
        const answerFull = (req, res, next) => {
          req.session.regenerate((error) => {
            if (error) return next(error);
            req.session.user = "ada";
            req.session.save((error) => {
              if (error?.code !== "ERR_TOO_MANY_SESSIONS") return error ? next(error) : res.end("in");
              req.session = null;
              res.status(409).end("full");
            });
          });
        };
        const ask = await serve(limited, {}, routes(answerFull));
        for (const _ of [1, 2]) assert.equal((await ask("/login")).body, "in");
        set.mock.resetCalls();
        assert.deepEqual(await ask("/login"), { status: 409, body: "full", setCookie: undefined });
        assert.equal(set.mock.callCount(), 1);
        assert.equal((await limited.getByUser("ada")).length, 2);
      });

      it("the callback gets the error", async () => {
        const set = (sid) =>
          new Promise((resolve) =>
            limited.set(sid, { cookie: { expires: new Date(Date.now() + HOUR) }, user: "ada" }, resolve),
          );
        for (const sid of ["a", "b"]) assert.equal(await set(sid), null);
        assert.equal((await set("c")).code, "ERR_TOO_MANY_SESSIONS");
        assert.equal(await set("a"), null, "a session that the user has already");
        assert.deepEqual(await limited.ids().then((ids) => ids.sort()), ["a", "b"]);
      });
    });

    it("gets sessions of express-session's classes, also in the first request of a process", async () => {
      const handler = (req, res) => {
        req.session.views = (req.session.views ?? 0) + 1;
        const { cookie } = req.session;
        const isOwn = req.session instanceof session.Session && cookie instanceof session.Cookie;
        res.end(`${req.session.views} ${isOwn} ${req.session.id} ${JSON.stringify(cookie)}`);
      };
      const options = { cookie: { maxAge: HOUR, sameSite: "lax", path: "/" } };
      const jar = {};
      const first = await serve(store, options, handler);
      const [views, isOwn, sid, cookie] = (await first("/", jar)).body.split(" ");
      assert.deepEqual([views, isOwn, sid], ["1", "true", sidOf(jar)]);
      const restarted = await serve(new ConnectStore(store.store), options, handler);
      for (const expected of ["2", "3"]) {
        const [views, isOwn, same, again] = (await restarted("/", jar)).body.split(" ");
        assert.deepEqual([views, isOwn, same], [expected, "true", sid]);
        // express-session reads the clock twice, so the lifetime may shrink by some milliseconds.
        const ofOthers = (text) => ({ ...JSON.parse(text), expires: undefined, originalMaxAge: undefined });
        assert.deepEqual(ofOthers(again), ofOthers(cookie));
        assert.ok(Math.abs(JSON.parse(again).originalMaxAge - HOUR) < 1000);
      }
    });

    it("accepts that a request shortens the session by less than a second", async (t) => {
      const shorter = HOUR - 900;
      const ask = await serve(store, { cookie: { maxAge: HOUR } }, (req, res) => {
        req.session.user ??= "ada";
        if (req.path === "/maxAge") req.session.cookie.maxAge = shorter;
        if (req.path === "/expires") req.session.cookie.expires = new Date(Date.now() + shorter);
        res.end();
      });
      // Otherwise the second request would be later by itself.
      t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
      for (const path of ["/maxAge", "/expires"]) {
        const jar = {};
        await ask("/", jar);
        await ask(path, jar);
        const { expires } = await store.store.get(sidOf(jar));
        assert.equal(Date.parse(expires), Date.now() + shorter, path);
      }
    });

    it("keeps a later expiry that others have set", async () => {
      const ask = await serve(store, { cookie: { maxAge: HOUR } }, (req, res) => {
        req.session.user ??= "ada";
        res.end();
      });
      const jar = {};
      await ask("/", jar);
      const end = new Date(Date.now() + 30 * HOUR);
      await store.store.touch(sidOf(jar), end);
      await ask("/", jar);
      assert.equal((await store.store.get(sidOf(jar))).expires, end.toISOString());
    });

    it("treats a cookie with an impossible id as unknown", async () => {
      const ask = await serve(store, { genid: (req) => req.headers["x-id"] ?? "an id" }, counter);
      const jar = jarOf("x".repeat(300));
      assert.equal((await ask("/", jar)).body, "1");
      assert.equal(sidOf(jar), "an id");
    });

    it("serves a session that another program stored with a number as its expiry", async () => {
      const ask = await serve(store, { cookie: { maxAge: HOUR } }, (req, res) => {
        res.end(`${req.session.user} ${req.session.cookie.expires instanceof Date}`);
      });
      // A fraction of a millisecond is valid, too.
      for (const [sid, fraction] of [
        ["whole", 0],
        ["fraction", 0.5],
      ]) {
        const expires = Date.now() + HOUR / 2 + fraction;
        const cookie = { originalMaxAge: HOUR, expires: new Date(expires), path: "/", httpOnly: true };
        await store.store.create({ sessionId: sid, expires, session: { cookie, user: "ada" } });
        assert.equal((await store.get(sid)).cookie.expires, new Date(expires).toISOString());
        // The second request loads it after a touch.
        for (const _ of [1, 2]) assert.equal((await ask("/", jarOf(sid))).body, "ada true");
        const stored = await store.store.get(sid);
        assert.ok(new Date(stored.expires) > expires + HOUR / 4, "touched");
        assert.equal((await store.get(sid)).cookie.expires, new Date(stored.expires).toISOString());
      }
    });

    it("keeps its sessions", async () => {
      const ask = await serve(store, {}, counter);
      const [one, other] = [{}, {}];
      assert.equal((await ask("/", one)).body, "1");
      assert.equal((await ask("/", one)).body, "2");
      assert.equal((await ask("/", other)).body, "1");
      assert.equal(await store.length(), 2);
    });

    for (const [what, cookie] of [
      ["lasts", { maxAge: HOUR }],
      ["ends with the browser", {}],
    ]) {
      it(`knows when a session was last used whose cookie ${what}`, async () => {
        const ask = await serve(store, { cookie }, (req, res) => {
          req.session.user = "ada";
          res.end();
        });
        const jar = {};
        await assertKnowsLastUse(store, () => ask("/", jar));
      });
    }

    it("never adopts an id from outside", async () => {
      const ask = await serve(store, {}, counter);
      const jar = {};
      await ask("/", jar);
      const sid = sidOf(jar);
      // Signed by this app, but not reusable.
      await store.destroy(sid);
      assert.equal((await ask("/", jar)).body, "1");
      assert.notEqual(sidOf(jar), sid);
      assert.deepEqual(await store.ids(), [sidOf(jar)]);
      const forged = { cookie: "connect.sid=s%3Amine.signature" };
      assert.equal((await ask("/", forged)).body, "1");
      assert.notEqual(sidOf(forged), "mine");
    });

    it("replaces a session by a new one, again and again", async () => {
      const ask = await serve(store, {}, (req, res, next) => {
        const before = req.session.id;
        req.session.regenerate((error) => {
          if (error) return next(error);
          req.session.user = "ada";
          res.end(`${before === req.session.id}`);
        });
      });
      const jar = {};
      const seen = new Set();
      for (let round = 0; round < 5; round++) {
        assert.equal((await ask("/", jar)).body, "false");
        seen.add(sidOf(jar));
        assert.deepEqual(await store.ids(), [sidOf(jar)]);
      }
      assert.equal(seen.size, 5);
    });

    it("may save, touch and reload a session many times in one request", async () => {
      const ask = await serve(store, { resave: true }, async (req, res) => {
        const call = (method) =>
          new Promise((resolve, reject) => {
            req.session[method]((error) => (error ? reject(error) : resolve()));
          });
        req.session.step = 1;
        await call("save");
        req.session.step = 2;
        await call("save");
        await call("reload");
        req.session.touch();
        await call("save");
        res.end(`${req.session.step}`);
      });
      const jar = {};
      assert.equal((await ask("/", jar)).body, "2");
      assert.equal((await store.get(sidOf(jar))).step, 2);
    });

    it("cannot reload a session that has ended", async () => {
      const ask = await serve(store, {}, (req, res, next) => {
        if (req.path === "/login") return counter(req, res);
        store.destroy(req.session.id, () => req.session.reload((error) => next(error)));
      });
      const jar = {};
      await ask("/login", jar);
      assert.match((await ask("/", jar)).body, /failed to load session/);
    });

    it("loads a session outside of a request, with its methods", async () => {
      const ask = await serve(store, { cookie: { maxAge: HOUR } }, counter);
      const jar = {};
      await ask("/", jar);
      const load = (sid) =>
        new Promise((resolve, reject) => {
          store.load(sid, (error, loaded) => (error ? reject(error) : resolve(loaded)));
        });
      const loaded = await load(sidOf(jar));
      assert.ok(loaded instanceof session.Session);
      assert.ok(loaded.cookie.expires instanceof Date);
      loaded.views = 9;
      await new Promise((resolve) => loaded.save(resolve));
      assert.equal((await ask("/", jar)).body, "10");
      assert.equal(await load("nobody"), undefined);
    });

    it("moves the expiry with each request, and stores no data for that", async () => {
      const writes = [];
      const inner = store.store;
      for (const method of ["create", "update", "touch"]) {
        const call = inner[method].bind(inner);
        inner[method] = (...args) => {
          writes.push(method);
          return call(...args);
        };
      }
      const ask = await serve(store, { cookie: { maxAge: HOUR } }, (req, res) => {
        req.session.user ??= "ada";
        res.end();
      });
      const jar = {};
      await ask("/", jar);
      const before = (await inner.get(sidOf(jar))).expires;
      await new Promise((resolve) => setTimeout(resolve, 5));
      await ask("/", jar);
      assert.ok((await inner.get(sidOf(jar))).expires > before);
      assert.deepEqual(writes, ["create", "touch"]);
    });

    it("writes nothing for a request that comes within touchAfter", async () => {
      store = new ConnectStore(store.store, { touchAfter: HOUR / 10 });
      for (const resave of [false, true]) {
        const ask = await serve(store, { resave, cookie: { maxAge: HOUR } }, (req, res) => {
          req.session.user ??= "ada";
          res.end();
        });
        const jar = {};
        await ask("/", jar);
        const before = (await store.store.get(sidOf(jar))).expires;
        await new Promise((resolve) => setTimeout(resolve, 5));
        await ask("/", jar);
        assert.equal((await store.store.get(sidOf(jar))).expires, before);
      }
    });

    it("does not undo a concurrent save by a request without changes, with resave", async () => {
      await assertKeepsOtherSave(store, sidOf, (answer) =>
        serve(store, { resave: true, cookie: { maxAge: HOUR } }, async (req, res) => {
          res.end(await answer(req.path, req.session));
        }),
      );
    });

    it("stores only the lifetime that a request gives its cookie", async () => {
      const ask = await serve(store, { cookie: { maxAge: HOUR } }, (req, res) => {
        req.session.user ??= "ada";
        if (req.path === "/remember") req.session.cookie.maxAge = 30 * 24 * HOUR;
        if (req.path === "/forget") req.session.cookie.expires = null;
        res.end(`${req.session.cookie.originalMaxAge}`);
      });
      const jar = {};
      await ask("/", jar);
      await ask("/remember", jar);
      // express-session reads the clock twice to set it.
      const lost = 30 * 24 * HOUR - Number((await ask("/", jar)).body);
      assert.ok(lost >= 0 && lost < HOUR / 2, `${lost} ms less`);
      await ask("/forget", jar);
      assert.equal((await ask("/", jar)).body, "null");
      const { cookie } = await store.get(sidOf(jar));
      assert.equal(cookie.expires, null);
    });

    it("ends a session that is set to null, with unset: destroy", async () => {
      const ask = await serve(store, { unset: "destroy" }, (req, res) => {
        if (req.path === "/out") req.session = null;
        else req.session.user = "ada";
        res.end();
      });
      const jar = {};
      await ask("/", jar);
      await ask("/out", jar);
      assert.equal(await store.length(), 0);
    });

    it("may generate the same id again", async () => {
      const ask = await serve(store, { genid: (req) => `of ${req.headers.connection}` }, (req, res, next) => {
        if (req.path === "/out") return req.session.destroy((error) => (error ? next(error) : res.end()));
        counter(req, res);
      });
      for (let round = 0; round < 3; round++) {
        const jar = {};
        assert.equal((await ask("/", jar)).body, "1");
        assert.equal((await ask("/", jar)).body, "2");
        await ask("/out", jar);
        assert.equal(await store.length(), 0);
      }
    });

    it("lets the last set win if two requests generate the same id", async () => {
      const ask = await serve(store, { genid: () => "one for all" }, counter);
      await ask("/");
      await ask("/");
      assert.equal((await store.get("one for all")).views, 1);
      assert.equal(await store.length(), 1);
    });

    it("receives the store's errors", async () => {
      const ask = await serve(store, {}, (req, res, next) => {
        if (req.path === "/save") {
          req.session.user = "ada";
          req.session.save(next);
        } else if (req.path === "/destroy") {
          req.session.destroy(next);
        } else {
          req.session.user = "ada";
          res.end("sent");
        }
      });
      const jar = {};
      await ask("/", jar);
      await store.close();
      assert.match((await ask("/", jar)).body, /^ERR_STORE_CLOSED/);
      for (const path of ["/save", "/destroy"]) {
        const { status, body } = await ask(path);
        assert.deepEqual([status, body.split(":")[0]], [500, "ERR_STORE_CLOSED"]);
      }
    });

    it("drops saves after the session has ended, however long the request took", async (t) => {
      const ended = new ConnectStore(store.store);
      const ask = await serve(store, {}, async (req, res) => {
        req.session.views = (req.session.views ?? 0) + 1;
        if (req.path === "/slow") {
          await ended.destroy(req.session.id);
          later(t, 3 * HOUR);
        }
        res.end();
      });
      const jar = {};
      await ask("/", jar);
      await ask("/slow", jar);
      assert.equal(await store.length(), 0);
    });
  });
}

describe("a ConnectStore outside of a request", () => {
  const load = (store, sid) =>
    new Promise((resolve, reject) => {
      store.load(sid, (error, loaded) => (error ? reject(error) : resolve(loaded)));
    });

  it("loads a session before the first request", async () => {
    const store = new ConnectStore(new MemoryStore());
    await store.set("a", {
      cookie: { originalMaxAge: HOUR, expires: new Date(Date.now() + HOUR) },
      user: "ada",
    });
    session({ ...OPTIONS, store, genid: (req) => `of ${req.headers.host}` });
    const loaded = await load(store, "a");
    assert.ok(loaded instanceof session.Session);
    assert.ok(loaded.cookie instanceof session.Cookie);
    assert.ok(loaded.cookie.expires instanceof Date);
    assert.deepEqual([loaded.id, loaded.user], ["a", "ada"]);
  });

  it("reports that express-session was never given the store", async () => {
    const store = new ConnectStore(new MemoryStore());
    await store.set("a", { cookie: {} });
    const expected = { code: "ERR_INVALID_OPTION", message: /session\(\{ store, … \}\)/ };
    assert.throws(() => store.createSession({ sessionID: "a" }, { cookie: {} }), expected);
    await assert.rejects(load(store, "a"), expected);
    assert.equal(await load(store, "nobody"), undefined);
  });

  it("reports errors of the app's genid", async () => {
    const store = new ConnectStore(new MemoryStore());
    await store.set("a", { cookie: {} });
    const genid = (req) => req.user.name;
    session({ ...OPTIONS, store, genid });
    await assert.rejects(load(store, "a"), TypeError);
  });
});

describe("an app on Passport", () => {
  it("logs a user out everywhere", async () => {
    const store = new ConnectStore(new MemoryStore(), { userId: (kept) => kept.passport?.user });
    const users = new passport.Passport();
    users.use(new Strategy((name, password, done) => done(null, password === "right" ? { name } : false)));
    users.serializeUser((user, done) => done(null, user.name));
    users.deserializeUser((name, done) => done(null, { name }));
    const routes = express.Router();
    routes.use(users.session());
    routes.get("/login", users.authenticate("local"), (req, res) => res.end(req.user.name));
    routes.get("/me", (req, res) => res.end(req.user?.name ?? "nobody"));
    routes.get("/out", (req, res, next) => req.logout((error) => (error ? next(error) : res.end())));
    routes.get("/others", async (req, res) => {
      res.end(`${await store.destroyByUser(req.user.name, { except: req.session.id })}`);
    });
    const ask = await serve(store, {}, routes);

    const login = async (name) => {
      const jar = {};
      assert.equal((await ask(`/login?username=${name}&password=right`, jar)).body, name);
      return jar;
    };
    const [phone, laptop, other] = [await login("ada"), await login("ada"), await login("grace")];
    assert.equal((await ask("/login?username=ada&password=wrong")).status, 401);
    const sidsOf = async (user) => (await store.getByUser(user)).map(({ sid }) => sid);
    assert.deepEqual(await sidsOf("ada"), [sidOf(phone), sidOf(laptop)]);
    assert.equal((await ask("/others", laptop)).body, "1");
    assert.equal((await ask("/me", phone)).body, "nobody");
    assert.equal((await ask("/me", laptop)).body, "ada");
    assert.equal((await ask("/me", other)).body, "grace");
    await ask("/out", laptop);
    assert.equal((await ask("/me", laptop)).body, "nobody");
    assert.deepEqual(await sidsOf("ada"), []);
  });
});
