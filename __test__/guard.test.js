"use strict";

const assert = require("node:assert/strict");
const { fork } = require("node:child_process");
const { once } = require("node:events");
const path = require("node:path");
const { describe, it } = require("node:test");
const cookieParser = require("cookie-parser");
const { MemoryStore, SessionStoreError, guardSession } = require("..");
const { FluidAuthSession } = require("./support/fluidauth-session");
const { get, logIn, serve } = require("./support/guard-app");

const NAME = "fluid-auth-session";

function guarded(options) {
  return guardSession(new FluidAuthSession({ store: new MemoryStore(), ...options }));
}

/** Serves an app. At the end checks that each request called `next` once: Express 4 would hide a second call. */
async function start(t, session, { passedOn = 1, ...options } = {}) {
  const app = await serve(session, options);
  t.after(() => {
    app.close();
    assert.deepEqual(app.nexts, Array(app.nexts.length).fill(passedOn));
  });
  return app;
}

async function staleCookie(port) {
  const cookie = await logIn(port);
  await get(port, "/logout", cookie);
  return cookie;
}

function failing(store, ...methods) {
  for (const method of methods) {
    store[method] = async () => {
      throw new Error(`${method} failed`);
    };
  }
  return store;
}

function assertCleared({ setCookies }) {
  assert.equal(setCookies.length, 1);
  assert.match(setCookies[0], new RegExp(`^${NAME}=;`));
  assert.match(setCookies[0], /Expires=Thu, 01 Jan 1970/);
  assert.doesNotMatch(setCookies[0], /Max-Age/);
}

function assertAnonymous(answer) {
  assert.deepEqual({ status: answer.status, body: answer.body }, { status: 200, body: { user: null } });
  assertCleared(answer);
}

describe("a server process", () => {
  async function spawn(t, mode) {
    const child = fork(path.join(__dirname, "support/guard-child.js"), [mode], { stdio: "pipe" });
    t.after(() => child.kill());
    const [port] = await once(child, "message");
    return { child, port };
  }

  const cookies = { stale: staleCookie, garbage: () => `${NAME}=garbage` };
  for (const [kind, makeCookie] of Object.entries(cookies)) {
    it(`dies of one ${kind} cookie when it is not guarded`, async (t) => {
      const { child, port } = await spawn(t, "unguarded");
      const cookie = await makeCookie(port);
      const exit = once(child, "exit");
      get(port, "/", cookie).catch(() => {}); // whether the answer still gets out is chance
      assert.deepEqual(await exit, [1, null]);
    });

    it(`survives ${kind} cookies when it is guarded`, async (t) => {
      const { child, port } = await spawn(t, "guarded");
      for (let i = 0; i < 5; i++) assertAnonymous(await get(port, "/", await makeCookie(port)));
      assert.equal(child.exitCode, null);
    });
  }
});

describe("a guarded session", () => {
  it("keeps a good cookie logged in", async (t) => {
    const { port } = await start(t, guarded());
    const cookie = await logIn(port);
    for (let i = 0; i < 3; i++) {
      assert.deepEqual(await get(port, "/", cookie), { status: 200, body: { user: "ada" }, setCookies: [] });
    }
  });

  it("does not affect a request without a cookie, or with an empty one", async (t) => {
    const { port } = await start(t, guarded());
    const anonymous = { status: 200, body: { user: null }, setCookies: [] };
    assert.deepEqual(await get(port), anonymous);
    assert.deepEqual(await get(port, "/", `${NAME}=`), anonymous);
  });

  it("answers an expired cookie as anonymous and clears it", async (t) => {
    const { port } = await start(t, guarded({ duration: -1000 }));
    assertAnonymous(await get(port, "/", await logIn(port)));
  });

  it("ends an expired session that the store still returns", async (t) => {
    const store = new MemoryStore();
    const deleted = [];
    store.get = async (sessionId) => ({ sessionId, userId: "ada", expires: new Date(0).toISOString() });
    store.delete = async (sessionId) => deleted.push(sessionId);
    const { port } = await start(t, guarded({ store }));
    assertAnonymous(await get(port, "/", await logIn(port)));
    assert.equal(deleted.length, 1);
  });

  it("logs in on the request that brought a garbage cookie", async (t) => {
    const { port } = await start(t, guarded());
    const { setCookies } = await get(port, "/login", `${NAME}=garbage`);
    const last = setCookies.at(-1).split(";")[0];
    assert.deepEqual((await get(port, "/", last)).body, { user: "ada" });
  });

  it("clears a stale cookie before the handler runs", async (t) => {
    const seen = [];
    const route = (app) =>
      app.use((_req, res, next) => next(seen.push(res.getHeader("set-cookie")) && undefined));
    const { port } = await start(t, guarded(), { route });
    const cookie = await staleCookie(port);
    seen.length = 0;
    await get(port, "/", cookie);
    assert.match(seen[0], /Expires=Thu, 01 Jan 1970/);
  });

  it("does not mix concurrent requests", async (t) => {
    const { port } = await start(t, guarded());
    const stale = await staleCookie(port);
    const users = Array.from({ length: 40 }, (_, i) => `user-${i}`);
    const good = await Promise.all(users.map((user) => logIn(port, user)));
    const answers = await Promise.all(
      good.flatMap((cookie, i) => [
        get(port, "/", cookie),
        get(port, "/", i % 2 ? stale : `${NAME}=garbage-${i}`),
      ]),
    );
    for (const [i, user] of users.entries()) {
      assert.deepEqual(answers[2 * i], { status: 200, body: { user }, setCookies: [] });
      assertAnonymous(answers[2 * i + 1]);
    }
  });

  it("works for a subclass with methods of its own", async (t) => {
    class Audited extends FluidAuthSession {
      log = [];
      async manageSession(req, res, next) {
        this.log.push("manage");
        return super.manageSession(req, res, next);
      }
      async destroySession(req, res) {
        this.log.push("destroy");
        return super.destroySession(req, res);
      }
    }
    const session = guardSession(new Audited({ store: new MemoryStore() }));
    const { port } = await start(t, session);
    const cookie = await staleCookie(port);
    session.log.length = 0;
    assertAnonymous(await get(port, "/", cookie));
    assert.deepEqual(session.log, ["manage", "destroy"]);
  });

  it("waits for a subclass that calls next after its promise has settled", async (t) => {
    class Detached extends FluidAuthSession {
      manageSession(req, res, next) {
        super.manageSession(req, res, next);
      }
    }
    const session = guardSession(new Detached({ store: new MemoryStore() }));
    const { port } = await start(t, session);
    assert.deepEqual((await get(port, "/", await logIn(port))).body, { user: "ada" });
    assertAnonymous(await get(port, "/", await staleCookie(port)));
  });

  it("calls next once for a subclass that calls it twice, in time or late", async (t) => {
    for (const when of [(call) => call(), setImmediate]) {
      class Twice extends FluidAuthSession {
        async manageSession(req, _res, next) {
          req.session = { user: null };
          when(() => {
            next();
            next();
          });
        }
      }
      const { port } = await start(t, guardSession(new Twice({ store: new MemoryStore() })));
      assert.equal((await get(port)).status, 200);
    }
  });

  it("has called next when its promise resolves", async () => {
    let calls = 0;
    await guarded().manageSession({ cookies: {} }, {}, () => calls++);
    assert.equal(calls, 1);
  });

  it("decrypts a good cookie once for each request", async (t) => {
    let decrypted = 0;
    class Counting extends FluidAuthSession {
      decryptSessionId(cookie) {
        decrypted++;
        return super.decryptSessionId(cookie);
      }
    }
    const { port } = await start(t, guardSession(new Counting({ store: new MemoryStore() })));
    const cookie = await logIn(port);
    await get(port, "/", cookie);
    await get(port, "/", cookie);
    assert.equal(decrypted, 2);
  });

  it("decrypts the cookie that a subclass requests", async (t) => {
    class TwoCookies extends FluidAuthSession {
      async manageSession(req, res, next) {
        req.other = this.decryptSessionId(req.cookies.other);
        return super.manageSession(req, res, next);
      }
    }
    const session = guardSession(new TwoCookies({ store: new MemoryStore() }));
    const route = (app) => app.get("/other", (req, res) => res.json([req.other, req.session.user.id]));
    const { port } = await start(t, session, { route });
    const other = `other=${session.encryptSessionId("another id")}`;
    const { setCookies } = await get(port, "/login", other);
    const cookie = `${setCookies[0].split(";")[0]}; ${other}`;
    assert.deepEqual((await get(port, "/other", cookie)).body, ["another id", "ada"]);
  });

  it("does not call next for a subclass that answers by itself", async (t) => {
    class Closed extends FluidAuthSession {
      async manageSession(_req, res) {
        res.status(503).json({});
      }
    }
    const session = guardSession(new Closed({ store: new MemoryStore() }));
    const { port } = await start(t, session, { passedOn: 0 });
    assert.equal((await get(port)).status, 503);
  });
});

describe("a hostile cookie", () => {
  const hostile = {
    "an object": "j:{}",
    "an object with the method's name": 'j:{"split":1,"toString":1}',
    "an array": "j:[1]",
    "a number": "j:5",
    true: "j:true",
    "no hex": "z:z",
    "only a colon": ":",
    "a NUL": "\0",
    __proto__: "__proto__",
    "4 KB": "0123456789abcdef".repeat(256),
    "the right form": `${"0".repeat(32)}:${"0".repeat(96)}`,
  };
  for (const [what, value] of Object.entries(hostile)) {
    it(`that is ${what} is cleared`, async (t) => {
      const { port } = await start(t, guarded());
      assertAnonymous(await get(port, "/", `${NAME}=${encodeURIComponent(value)}`));
    });
  }

  for (const [what, id] of Object.entries({
    empty: "",
    "too long": "é".repeat(129),
    "ill-formed": "\ud800",
  })) {
    it(`that decrypts to an ${what} id is cleared and the store is not asked`, async (t) => {
      const session = guarded({ store: failing(new MemoryStore(), "get", "delete") });
      session.decryptSessionId = () => id;
      const { port } = await start(t, session);
      assertAnonymous(await get(port, "/", `${NAME}=x`));
    });
  }

  it("that decrypts to an id of 256 bytes is looked up", async (t) => {
    const session = guarded();
    const { port } = await start(t, session);
    await session.store.create({
      sessionId: "é".repeat(128),
      userId: "ada",
      expires: new Date(Date.now() + 60_000),
    });
    const cookie = `${NAME}=${session.encryptSessionId("é".repeat(128))}`;
    assert.deepEqual((await get(port, "/", cookie)).body, { user: "ada" });
  });

  it("that is not a string is not passed to FluidAuth", async (t) => {
    const session = guarded();
    let asked = 0;
    session.decryptSessionId = () => `id-${asked++}`;
    const { port } = await start(t, session);
    assertAnonymous(await get(port, "/", `${NAME}=${encodeURIComponent('j:{"a":1}')}`));
    assert.equal(asked, 0);
  });

  it("is removed from req.cookies, and the others stay", async (t) => {
    const route = (app) => app.get("/cookies", (req, res) => res.json(req.cookies));
    const { port } = await start(t, guarded(), { route });
    assert.deepEqual((await get(port, "/cookies", `a=1; ${NAME}=garbage`)).body, { a: "1" });
  });
});

describe("an error", () => {
  const faults = [
    { fails: ["get"], reported: "get failed" },
    { fails: ["delete"], reported: "delete failed" },
    { fails: ["get", "delete"], reported: "get failed" },
  ];
  for (const { fails, reported } of faults) {
    it(`of the store's ${fails.join(" and ")} reaches the error handler once`, async (t) => {
      const store = new MemoryStore();
      const { port, errors } = await start(t, guarded({ store }));
      const cookie = await staleCookie(port);
      failing(store, ...fails);
      const { status, body } = await get(port, "/", cookie);
      assert.deepEqual({ status, body }, { status: 500, body: { error: reported } });
      assert.equal(errors.length, 1);
    });
  }

  it("of ending an expired session reaches the error handler once", async (t) => {
    const store = new MemoryStore();
    const { port, errors } = await start(t, guarded({ store }));
    const cookie = await logIn(port);
    store.get = async (sessionId) => ({ sessionId, userId: "ada", expires: new Date(0).toISOString() });
    failing(store, "delete");
    assert.deepEqual((await get(port, "/", cookie)).body, { error: "delete failed" });
    assert.equal(errors.length, 1);
  });

  it("of deserializeUser reaches the error handler once", async (t) => {
    const session = guarded();
    const { port, errors } = await start(t, session);
    const cookie = await logIn(port);
    session.deserializeUser = async () => assert.fail("no such user");
    assert.deepEqual((await get(port, "/", cookie)).body, { error: "no such user" });
    assert.equal(errors.length, 1);
  });

  it("for a missing cookie-parser reaches the error handler once", async (t) => {
    const { port, errors } = await start(t, guarded(), { before: [(_req, _res, next) => next()] });
    assert.equal((await get(port)).status, 500);
    assert.deepEqual(
      errors.map(({ message, cause }) => [message, cause.name]),
      [
        [
          "req.cookies is missing: app.use(cookieParser()), of cookie-parser, must come before app.use(auth.session())",
          "TypeError",
        ],
      ],
    );
  });

  it("wins over a next without one", async (t) => {
    class Undecided extends FluidAuthSession {
      async manageSession(_req, _res, next) {
        next(new Error("first"));
        next(new Error("second"));
        next();
      }
    }
    const { port, errors } = await start(t, guardSession(new Undecided({ store: new MemoryStore() })));
    assert.deepEqual((await get(port)).body, { error: "first" });
    assert.equal(errors.length, 1);
  });

  it("that is undefined is still an error", async (t) => {
    const store = new MemoryStore();
    const { port, errors } = await start(t, guarded({ store }));
    const cookie = await staleCookie(port);
    store.delete = () => Promise.reject();
    assert.equal((await get(port, "/", cookie)).status, 500);
    assert.equal(errors.length, 1);
  });

  it("thrown by a handler does not run it twice, and does not end the session", async (t) => {
    let runs = 0;
    const route = (app) =>
      app.get("/throw", () => {
        runs++;
        throw new Error("handler failed");
      });
    const { port, errors } = await start(t, guarded(), { route });
    const cookie = await logIn(port);
    assert.deepEqual(await get(port, "/throw", cookie), {
      status: 500,
      body: { error: "handler failed" },
      setCookies: [],
    });
    assert.deepEqual([runs, errors.length], [1, 1]);
    assert.deepEqual((await get(port, "/", cookie)).body, { user: "ada" });
  });

  it("thrown by next itself is uncaught, as from any callback", async (t) => {
    const session = guarded();
    const { port } = await start(t, session);
    const cookie = await logIn(port);
    const uncaught = [];
    process.setUncaughtExceptionCaptureCallback((error) => uncaught.push(error));
    t.after(() => process.setUncaughtExceptionCaptureCallback(null));

    const req = { cookies: { [NAME]: decodeURIComponent(cookie.slice(NAME.length + 1)) } };
    const fault = new Error("next failed");
    let calls = 0;
    await session.manageSession(req, {}, () => {
      calls++;
      throw fault;
    });
    await new Promise(setImmediate);
    assert.equal(calls, 1);
    assert.deepEqual(uncaught, [fault]);
    assert.deepEqual((await get(port, "/", cookie)).body, { user: "ada" });
  });
});

describe("a test with fake timers", () => {
  it("continues to the next handler", async (t) => {
    const session = guarded();
    t.mock.method(globalThis, "queueMicrotask", () => {});
    t.mock.method(globalThis, "setImmediate", () => {});
    let calls = 0;
    await session.manageSession({ cookies: {} }, {}, () => calls++);
    assert.equal(calls, 1);
  });
});

describe("ending a session in a handler", () => {
  function destroyRoute(outcome, answerFirst) {
    return (app) =>
      app.get("/destroy", async (req, res) => {
        if (answerFirst) res.json({});
        const ending = req.session.destroy();
        if (!answerFirst) res.json({});
        outcome.error = await ending.then(
          () => null,
          (error) => error,
        );
        outcome.user = req.user;
        outcome.sessionUser = req.session.user;
        outcome.done?.();
      });
  }

  it("drops a cookie clear after the response", async (t) => {
    const outcome = {};
    const { port } = await start(t, guarded(), { route: destroyRoute(outcome) });
    const cookie = await logIn(port);
    assert.deepEqual((await get(port, "/destroy", cookie)).setCookies, []);
    assert.deepEqual(outcome, { error: null, user: null, sessionUser: null });
    assertAnonymous(await get(port, "/", cookie));
  });

  it("does nothing, like FluidAuth, after the response", async (t) => {
    const ended = {};
    const done = new Promise((resolve) => {
      ended.done = resolve;
    });
    const { port } = await start(t, guarded(), { route: destroyRoute(ended, true) });
    const cookie = await logIn(port);
    await get(port, "/destroy", cookie);
    await done;
    assert.equal(ended.error, null);
    assert.deepEqual((await get(port, "/", cookie)).body, { user: "ada" });
  });

  it("rejects to its caller when the store fails", async (t) => {
    const store = new MemoryStore();
    const outcome = {};
    const { port, errors } = await start(t, guarded({ store }), { route: destroyRoute(outcome) });
    const cookie = await logIn(port);
    failing(store, "delete");
    await get(port, "/destroy", cookie);
    assert.equal(outcome.error.message, "delete failed");
    assert.deepEqual(errors, []);
  });

  it("clears a garbage cookie", async (t) => {
    const session = guarded();
    const before = [
      cookieParser(),
      async (req, res, next) => {
        req.user = "somebody";
        await session.destroySession(req, res).catch(next);
        next(req.user === null ? undefined : new Error("still signed in"));
      },
    ];
    const { port } = await start(t, session, { before });
    assertAnonymous(await get(port, "/", `${NAME}=garbage`));
  });
});

it("bad cookies do no harm after the response", async (t) => {
  const answerFirst = (_req, res, next) => {
    res.json({ user: null });
    next();
  };
  const session = guarded();
  const { port: loginPort } = await start(t, session);
  const { port, errors } = await start(t, session, { before: [cookieParser(), answerFirst] });
  for (const cookie of [await staleCookie(loginPort), `${NAME}=garbage`]) {
    assert.equal((await get(port, "/", cookie)).status, 200);
  }
  assert.deepEqual(errors, []);
});

describe("the clear of a cookie", () => {
  const cookie = {
    path: "/app",
    domain: "example.com",
    secure: true,
    sameSite: "none",
    maxAge: 5000,
    signed: false,
  };
  const cleared =
    `${NAME}=; Domain=example.com; Path=/app; Expires=Thu, 01 Jan 1970 00:00:00 GMT; ` +
    "HttpOnly; Secure; SameSite=None";

  it("has the path and domain that the cookie was set with", async (t) => {
    const { port } = await start(t, guarded({ cookie }));
    const good = await logIn(port);
    assert.deepEqual((await get(port, "/", `${NAME}=garbage`)).setCookies, [cleared], "garbage");
    assert.deepEqual((await get(port, "/logout", good)).setCookies, [cleared], "logout");
    assert.deepEqual((await get(port, "/", good)).setCookies, [cleared], "stale");
  });

  it("does not change the clear of other cookies by a subclass", async (t) => {
    class TwoCookies extends FluidAuthSession {
      async destroySession(req, res) {
        await super.destroySession(req, res);
        res.clearCookie("theme", { path: "/theme" });
      }
    }
    const { port } = await start(t, guardSession(new TwoCookies({ store: new MemoryStore(), cookie })));
    assert.deepEqual((await get(port, "/logout", await logIn(port))).setCookies, [
      cleared,
      "theme=; Path=/theme; Expires=Thu, 01 Jan 1970 00:00:00 GMT",
    ]);
  });
});

describe("another version of FluidAuth", () => {
  function serveOther(t, session, options) {
    const methods = {
      sessionInfo: { name: NAME },
      async manageSession(req, _res, next) {
        req.session = { user: null };
        next();
      },
      async destroySession() {},
    };
    return start(t, guardSession({ ...methods, ...session }), options);
  }

  it("without decryptSessionId has its errors reported once", async (t) => {
    const { port, errors } = await serveOther(t, {
      async manageSession() {
        throw new Error("unreadable");
      },
    });
    assert.deepEqual(await get(port, "/", `${NAME}=x`), {
      status: 500,
      body: { error: "unreadable" },
      setCookies: [],
    });
    assert.equal(errors.length, 1);
  });

  it("that parses cookies by itself needs no cookie-parser", async (t) => {
    const before = [(_req, _res, next) => next()];
    const { port } = await serveOther(t, { decryptSessionId: () => "an id" }, { before });
    assert.equal((await get(port, "/", `${NAME}=x`)).status, 200);
  });

  it("that decrypts asynchronously checks its cookies itself", async (t) => {
    const decryptSessionId = async () => assert.fail("unreadable");
    const { port } = await serveOther(t, { decryptSessionId });
    assert.deepEqual(await get(port, "/", `${NAME}=x`), {
      status: 200,
      body: { user: null },
      setCookies: [],
    });
  });
});

describe("guardSession", () => {
  const makeSession = () => new FluidAuthSession({ store: new MemoryStore() });

  it("returns the same session, with nothing enumerable added", () => {
    const session = makeSession();
    const keys = Object.keys(session);
    assert.equal(guardSession(session), session);
    assert.deepEqual(Object.keys(session), keys);
  });

  it("wraps once", () => {
    const session = guardSession(makeSession());
    const { manageSession, destroySession } = session;
    guardSession(session);
    assert.equal(session.manageSession, manageSession);
    assert.equal(session.destroySession, destroySession);
  });

  it("wraps once across two copies of the package", () => {
    const file = require.resolve("../lib/guard.js");
    const loaded = require.cache[file];
    delete require.cache[file];
    const copy = require(file);
    require.cache[file] = loaded;
    assert.notEqual(copy.guardSession, guardSession);
    const session = guardSession(makeSession());
    const { manageSession } = session;
    assert.equal(copy.guardSession(session).manageSession, manageSession);
  });

  it("does not affect other sessions of the class", () => {
    guardSession(makeSession());
    assert.equal(Object.hasOwn(makeSession(), "manageSession"), false);
  });

  class Unmanaged extends FluidAuthSession {
    manageSession = undefined;
  }
  class Undestroyed extends FluidAuthSession {
    destroySession = undefined;
  }
  const refused = [
    ["undefined", undefined, "undefined"],
    ["null", null, "null"],
    ["a string", "a secret", "a string"],
    ["a function", FluidAuthSession, "a function"],
    ["an array", [], "an array without the method manageSession"],
    ["{}", {}, "an object without the method manageSession"],
    ["no manageSession", new Unmanaged({}), "an object without the method manageSession"],
    ["no destroySession", new Undestroyed({}), "an object without the method destroySession"],
    ["no name", { manageSession() {}, destroySession() {} }, "an object without sessionInfo.name"],
  ];
  for (const [what, value, got] of refused) {
    it(`refuses ${what}`, () => {
      assert.throws(
        () => guardSession(value),
        (error) => {
          assert.ok(error instanceof SessionStoreError);
          assert.equal(error.name, "SessionStoreError");
          assert.equal(error.code, "ERR_INVALID_OPTION");
          assert.equal(error.message, `session must be a FluidAuth Session, got ${got}`);
          return true;
        },
      );
    });
  }
});
