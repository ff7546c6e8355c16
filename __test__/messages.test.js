"use strict";

// Common mistakes, each with the message of this package.

const assert = require("node:assert/strict");
const { once } = require("node:events");
const fs = require("node:fs");
const path = require("node:path");
const { after, describe, it } = require("node:test");
const { inspect } = require("node:util");
const Fastify = require("fastify");
const expressSession = require("express-session");
const { ConnectStore, FileStore, MemoryStore, RedisStore, SessionStoreError, guardSession } = require("..");
const { Bench, later, session } = require("./support/cli.js");
const { makePlace } = require("./support/file-places.js");
const { FluidAuthSession } = require("./support/fluidauth-session.js");

const place = makePlace();
const env = {};
const store = new MemoryStore();
const connect = new ConnectStore(store);
const open = new FileStore({ path: place.next() });
const encrypted = new FileStore({ path: place.next(), secret: "a secret that is long enough" });
after(() => Promise.all([store.close(), open.close(), encrypted.close()]));

const mine = { sessionId: "mine", userId: 5, expires: later() };
const circular = { ...mine };
circular.self = circular;

const NAMES = { ConnectStore, FileStore, MemoryStore, RedisStore, env, store, connect, open, encrypted };
const MORE = {
  mine,
  circular,
  newFolder: () => place.next(),
  session: expressSession,
  FluidAuthSession,
  guardSession,
};
const scope = { ...NAMES, ...MORE };

/** Runs the code of a row, as an app would. */
function run(code) {
  const body = new Function(...Object.keys(scope), `return ${code};`);
  return body(...Object.values(scope));
}

/** @param {Record<string, string>} rows The code of each mistake, and the message of its error. */
function mistakes(title, rows, errorCode = "ERR_INVALID_OPTION") {
  describe(title, () => {
    for (const [code, message] of Object.entries(rows)) {
      it(code, async () => {
        const error = await (async () => run(code))().then(
          (result) => assert.fail(`no error, but ${inspect(result)}`),
          (error) => error,
        );
        assert.equal(error.message, message);
        assert.ok(error instanceof SessionStoreError);
        assert.equal(error.code, errorCode);
      });
    }
  });
}

const FOLDER = 'the folder that holds the sessions, such as "/var/lib/app/sessions"';
const PATH = 'path must be the path of a folder, such as "/var/lib/app/sessions"; got';
const URL = 'url, such as "redis://localhost:6379"';
const OF_CONNECT = "an option of ConnectStore: new ConnectStore(store,";
const CONNECT = 'new ConnectStore(store), from "@fluidauth/native-store"';
const USER_ID = "new ConnectStore(store, { userId: (session) => session.userId })";

mistakes("the path of a FileStore", {
  "new FileStore()": `path is required: ${FOLDER}`,
  "new FileStore({ path: env.SESSIONS })": `path is required: ${FOLDER}; got undefined`,
  'new FileStore("./sessions")': "options must be an object; got a string: did you mean { path: … }?",
  'new FileStore({ path: "" })': `${PATH} an empty string`,
  'new FileStore({ path: "~/sessions" })': `${PATH} a path that begins with ~, which only shells know: use os.homedir()`,
  'new FileStore({ path: "file:///var/sessions" })': `${PATH} the string of a file: URL: use new URL(path)`,
});

mistakes("options as other stores call them", {
  'new FileStore({ dir: "./sessions" })': 'FileStore has no option "dir": did you mean path?',
  'new FileStore({ folder: "./sessions" })': 'FileStore has no option "folder": did you mean path?',
  'new FileStore({ filename: "./sessions.db" })': 'FileStore has no option "filename": did you mean path?',
  'new FileStore({ path: "./sessions", ttl: 60000 })': `FileStore has no option "ttl": it is ${OF_CONNECT} { ttl })`,
  'new FileStore({ path: "./sessions", encryptionKey: "x" })':
    'FileStore has no option "encryptionKey": did you mean secret?',
  'new FileStore({ path: "./sessions", reapInterval: 60 })':
    'FileStore has no option "reapInterval": did you mean sweepInterval?',
  "new MemoryStore({ max: 100 })": 'MemoryStore has no option "max": did you mean maxSessions?',
  "new MemoryStore({ checkPeriod: 86400000 })":
    'MemoryStore has no option "checkPeriod": did you mean sweepInterval?',
  "new MemoryStore({ maxSession: 100 })": 'MemoryStore has no option "maxSession": did you mean maxSessions?',
  'new RedisStore({ host: "localhost" })': `RedisStore has no option "host": did you mean ${URL}?`,
  "new RedisStore({ port: 6379 })": `RedisStore has no option "port": did you mean ${URL}?`,
  "new RedisStore({ client: {} })": `RedisStore has no option "client": it makes its own connections: give ${URL}`,
  'new RedisStore({ url: "redis://localhost", db: 1 })':
    'RedisStore has no option "db": the number of the database is in url, such as "redis://localhost:6379/1"',
  'new RedisStore({ url: "redis://localhost", keyPrefix: "app:" })':
    'RedisStore has no option "keyPrefix": did you mean prefix?',
  'new RedisStore({ url: "redis://localhost", timeout: 500 })':
    'RedisStore has no option "timeout": did you mean commandTimeout?',
  'new RedisStore({ url: "redis://localhost", ttl: 5 })': `RedisStore has no option "ttl": it is ${OF_CONNECT} { ttl })`,
  'new RedisStore({ url: "redis://localhost", maxAge: 5 })': `RedisStore has no option "maxAge": ttl is ${OF_CONNECT} { ttl })`,
  'new RedisStore({ path: "./sessions" })':
    'RedisStore has no option "path": it is an option of FileStore: new FileStore({ path })',
  "new ConnectStore(store, { maxAge: 60000 })": 'ConnectStore has no option "maxAge": did you mean ttl?',
  "new ConnectStore(store, { disableTouch: true })":
    'ConnectStore has no option "disableTouch": did you mean touchAfter?',
  "new ConnectStore(store, { getUserId: () => 5 })":
    'ConnectStore has no option "getUserId": did you mean userId?',
  'new ConnectStore(store, { path: "./sessions" })':
    'ConnectStore has no option "path": it is an option of FileStore: new ConnectStore(new FileStore({ path }))',
  'new ConnectStore(store, { secret: "x" })':
    'ConnectStore has no option "secret": it is an option of the store: new ConnectStore(new FileStore({ path, secret }))',
  "new MemoryStore({ colour: 1 })":
    'MemoryStore has no option "colour": the options are name, maxSessions, maxBytes, maxSessionBytes, ' +
    "maxSessionsPerUser, whenUserIsFull, maxLifetime, sweepInterval",
});

mistakes("values of options", {
  'new FileStore({ path: newFolder(), maxBytes: "10mb" })':
    "maxBytes must be a whole number of bytes from 1048576, such as 64 * 1024 * 1024; got a string",
  'new MemoryStore({ sweepInterval: "1m" })':
    "sweepInterval must be a whole number of milliseconds from 0, such as 60 * 1000 for a minute; got a string",
  'new FileStore({ path: newFolder(), durability: "always" })':
    'durability must be "commit" (resolves once the write is on disk) or "everysec" (on disk about a second later); ' +
    'got "always": did you mean "commit"?',
  'new ConnectStore(store, { ttl: "1d" })':
    "ttl must be a whole number of milliseconds from 1, or a function of the session; got a string",
});

mistakes("secrets", {
  "new FileStore({ path: newFolder(), secret: env.SESSION_FILE_SECRET })":
    "secret is undefined: leave it out for a store without encryption",
  'new RedisStore({ url: "redis://localhost", secret: undefined })':
    "secret is undefined: leave it out for a store without encryption",
  'new FileStore({ path: newFolder(), secret: "cat" })':
    'secret must be at least 16 bytes long, such as the output of "openssl rand -base64 32"; got 3 bytes',
  'new FileStore({ path: open.db.path, secret: "a secret that is long enough" })':
    "secret must be left out, as this process has the store of this path open without one; got a secret",
  "new FileStore({ path: encrypted.db.path })":
    "secret must be given, as this process has the store of this path open with one; got no secret",
  'new FileStore({ path: encrypted.db.path, secret: "another that is long enough" })':
    "secret must be the same as that of the open store of this path; got a different secret",
});

const A_URL =
  "url must be a URL such as redis://localhost:6379, rediss://user:password@host:6379/0 or unix:///run/redis.sock?db=0";

mistakes("the servers of a RedisStore", {
  "new RedisStore()":
    'RedisStore needs one of url, cluster and sentinel, such as url: "redis://localhost:6379"',
  'new RedisStore({ url: "redis://a", cluster: ["redis://b"] })':
    'RedisStore needs one of url, cluster and sentinel, such as url: "redis://localhost:6379"; got url and cluster',
  'new RedisStore("redis://localhost")': "options must be an object; got a string: did you mean { url: … }?",
  'new RedisStore({ url: "localhost:6379" })': `${A_URL}; got a string that does not begin with redis:// or rediss://`,
  'new RedisStore({ url: "http://localhost" })': `${A_URL}; got a string that does not begin with redis:// or rediss://`,
  'new RedisStore({ url: "" })': `${A_URL}; got an empty string`,
  'new RedisStore({ url: "redis://localhost", tls: {} })':
    "tls needs URLs that begin with rediss:// or valkeys://; the given ones connect without TLS",
  'new RedisStore({ url: "redis://:one@localhost", password: "two" })':
    "password is given twice: as an option, and in url",
});

mistakes("stores for express-session and @fastify/session", {
  "session({ store })": `MemoryStore is not a store for express-session or @fastify/session: give them ${CONNECT}`,
  "session({ store: FileStore })": `FileStore is not a store for express-session or @fastify/session: give them ${CONNECT}`,
  "session({ store: ConnectStore })":
    "the store is the class ConnectStore: give an instance, new ConnectStore(store)",
  'store.get("mine", (error, session) => {})': `MemoryStore.get returns a promise and takes no callback. express-session and @fastify/session need ${CONNECT}`,
  "store.size((error, size) => {})": `MemoryStore.size returns a promise and takes no callback. express-session and @fastify/session need ${CONNECT}`,
  "store.ping((error) => {})": `MemoryStore.ping returns a promise and takes no callback. express-session and @fastify/session need ${CONNECT}`,
  "new ConnectStore()":
    "store must be a store of this package, such as new FileStore({ path }); got undefined",
  "new ConnectStore(FileStore)":
    "store must be a store of this package, such as new FileStore({ path }); " +
    "got the class FileStore: did you mean new FileStore({ path })?",
  "new ConnectStore(Promise.resolve(store))":
    "store must be a store of this package, such as new FileStore({ path }); got a promise: await it",
});

mistakes("stores for FluidAuth", {
  "guardSession(new FluidAuthSession({ store: connect }))":
    "store of the Session must be one for FluidAuth, such as new FileStore({ path }); " +
    "got one for express-session, ConnectStore",
  "guardSession(store)":
    "session must be a FluidAuth Session, got an object without the method manageSession",
});

mistakes("users", {
  "connect.destroyByUser(5)": `destroyByUser needs the option userId, which says whose a session is: ${USER_ID}`,
  "connect.deleteByUser(5)": "ConnectStore has no deleteByUser: it is destroyByUser",
  "store.destroyByUser(5)": "MemoryStore has no destroyByUser: it is deleteByUser",
  "connect.getByUser(5)": `getByUser needs the option userId, which says whose a session is: ${USER_ID}`,
  "store.deleteByUser(5, { except: null })":
    "except must be the id of the session to keep, a non-empty string of at most 256 bytes; got null",
  'store.deleteByUser(5, "mine")': "options must be an object; got a string: did you mean { except: … }?",
  'store.deleteByUser(5, { exept: "mine" })': 'deleteByUser has no option "exept": did you mean except?',
});

const JSON_OBJECT = "session must be an object that JSON.stringify can write; got";
const A_TIME = "expires must be a Date, its text or milliseconds since 1970; got";
const HINT = "multiply seconds by 1000, add a duration to Date.now()";

mistakes(
  "sessions",
  {
    "store.create()": "session must be an object; got undefined",
    'store.create({ ...mine, sessionId: "" })':
      "sessionId must be a non-empty, well-formed string of at most 256 bytes as UTF-8; got an empty string",
    'store.create({ ...mine, expires: "soon" })':
      "expires must be anything that new Date(expires) makes a valid date; got an invalid date",
    "store.create({ ...mine, expires: 1735689600 })": `${A_TIME} 1735689600, which is 1970-01-21T02:08:09.600Z: ${HINT}`,
    'store.touch("mine", 60000)': `${A_TIME} 60000, which is 1970-01-01T00:01:00.000Z: ${HINT}`,
    "store.create(circular)": `${JSON_OBJECT} a circular object`,
    "store.create({ ...mine, total: 1n })": `${JSON_OBJECT} a BigInt`,
    "store.create({ ...mine, userId: 1n })": `${JSON_OBJECT} a BigInt in userId`,
    "store.getByUser(null)": "userId must be a JSON value other than null; got null",
  },
  "ERR_INVALID_SESSION",
);

describe("a warning reports times that are probably in seconds:", () => {
  const rows = {
    "new ConnectStore(store, { ttl: 86400 })":
      "ttl of ConnectStore is in milliseconds: 86400 is 86.4 seconds. For 86400 seconds write 86400 * 1000",
    "new ConnectStore(store, { touchAfter: 24 * 3600 })":
      "touchAfter of ConnectStore is in milliseconds: 86400 is 86.4 seconds. For 86400 seconds write 86400 * 1000",
    "new MemoryStore({ maxLifetime: 3600 })":
      "maxLifetime of MemoryStore is in milliseconds: 3600 is 3.6 seconds. For 3600 seconds write 3600 * 1000",
  };
  for (const [code, message] of Object.entries(rows)) {
    it(code, async () => {
      const warned = once(process, "warning");
      run(code);
      const [warning] = await warned;
      assert.deepEqual([warning.message, warning.code], [message, "NATIVE_STORE_SECONDS"]);
    });
  }

  it("but not plausible times", async () => {
    const warnings = [];
    const note = (warning) => warnings.push(warning.message);
    process.on("warning", note);
    new FileStore({ path: place.next(), maxLifetime: 60_000 });
    new FileStore({ path: place.next(), maxLifetime: 90_000 });
    new FileStore({ path: place.next(), maxLifetime: 86_400_000 });
    new FileStore({ path: place.next(), maxLifetime: 30 * 86_400_000 });
    await new Promise(setImmediate);
    process.off("warning", note);
    assert.deepEqual(warnings, []);
  });
});

it("a warning reports maxSessionsPerUser without the option userId of ConnectStore", async () => {
  const warned = once(process, "warning");
  new ConnectStore(new MemoryStore({ maxSessionsPerUser: 5 }));
  const [warning] = await warned;
  assert.equal(
    warning.message,
    `maxSessionsPerUser has no effect on the sessions of a ConnectStore without the option userId: ${USER_ID}`,
  );
});

it("a store instead of a ConnectStore answers requests of @fastify/session with an error", async () => {
  const app = Fastify();
  const secret = "a secret for tests, and for nothing else";
  app.register(require("@fastify/cookie"));
  app.register(require("@fastify/session"), { secret, store, cookie: { secure: false } });
  app.get("/", async () => "unreachable");
  app.get("/login", async ({ session }) => session.regenerate());
  const fails = async (cookies, url = "/") => {
    const { statusCode, body } = await app.inject({ url, cookies });
    assert.equal(statusCode, 500);
    assert.match(JSON.parse(body).message, /new ConnectStore\(store\)/);
  };
  await fails({});
  await fails({}, "/login");
  await app.ready();
  await fails({ sessionId: require("@fastify/cookie").sign("x".repeat(32), secret) });
  await app.close();
});

it("a method without its store explains how to call it", async () => {
  const message = (name) =>
    `${name} was called without its store: call store.${name}(…), or store.${name}.bind(store)`;
  for (const name of ["get", "create", "update", "touch", "delete", "size", "getByUser", "deleteByUser"]) {
    const method = store[name];
    await assert.rejects(method("x"), { name: "TypeError", message: message(name) });
  }
  const { close, stats } = store;
  await assert.rejects(close(), { name: "TypeError", message: message("close") });
  for (const name of ["sessions", "ids"]) {
    const method = store[name];
    await assert.rejects(method().next(), { name: "TypeError", message: message(name) });
  }
  for (const name of ["ready", "ping"]) {
    const method = store[name];
    await assert.rejects(method(), { name: "TypeError", message: message(name) });
  }
  await assert.rejects(stats.call({}), { name: "TypeError", message: message("stats") });
});

describe("an error that is printed", () => {
  const here = `${path.basename(__filename)}:`;

  for (const code of [
    "new FileStore({ path: 5 })",
    'new FileStore({ path: newFolder(), secret: "cat" })',
    'new RedisStore({ url: "localhost" })',
    "new MemoryStore({ maxSessions: 0 })",
    "new ConnectStore(5)",
    "store.create(null)",
    'store.create({ ...mine, sessionId: "" })',
    "store.get(5)",
    'store.update("mine", { ...mine, expires: "soon" })',
    'store.touch("mine", "soon")',
    "store.delete(null)",
  ]) {
    it(`shows its message once, and its stack starts at the mistake of the app: ${code}`, async () => {
      const error = await (async () => run(code))().catch((error) => error);
      assert.equal(inspect(error).split(error.message).length, 2);
      const [, first, ...others] = error.stack.split("\n");
      assert.match(first, /eval at run|<anonymous>/);
      assert.ok(others.some((frame) => frame.includes(here)));
      assert.doesNotMatch(error.stack, /native-store\.js|session-store\.js|options\.js/);
    });
  }
});

it("a ConnectStore that is printed shows its store and its options", () => {
  const userId = () => 5;
  const shown = inspect(new ConnectStore(new MemoryStore(), { ttl: 90_000, userId }));
  assert.equal(
    shown,
    `ConnectStore {
  store: MemoryStore { db: { type: 'memory', name: null } },
  ttl: 90000,
  touchAfter: 0,
  prefix: '',
  userId: [Function: userId]
}`,
  );
  assert.equal(inspect({ deep: { deeper: { connect } } }, { depth: 1 }), "{ deep: { deeper: [Object] } }");
  assert.equal(inspect({ a: { connect } }, { depth: 1 }), "{ a: { connect: [ConnectStore] } }");
});

it("the path of a FileStore and of a backup may be a URL, for example from import.meta.url", async () => {
  const [folder, copy] = [place.next(), place.next()];
  const fromUrl = new FileStore({ path: new globalThis.URL(`file://${folder}`) });
  assert.equal(fromUrl.db.path, fs.realpathSync(folder));
  await fromUrl.create(session("a"));
  await fromUrl.backup(new globalThis.URL(`file://${copy}`));
  await fromUrl.close();
  const restored = new FileStore({ path: copy });
  assert.equal(await restored.size(), 1);
  await restored.close();
});

it("a number that is not a current time is accepted if a test has set the clock to 1970", async (t) => {
  t.mock.timers.enable({ apis: ["Date"] });
  const early = new MemoryStore();
  await early.create({ ...mine, expires: 60_000 });
  assert.equal((await early.get("mine")).expires, 60_000);
  assert.equal(await early.touch("mine", 90_000), true);
});

describe("the command", () => {
  for (const [args, options, message] of [
    [
      ["stats", "--secret", "x"],
      {},
      "--secret is not supported, because every user of the machine can see the command line: use --secret-file or NATIVE_STORE_SECRET",
    ],
    [
      ["stats", "--password", "x"],
      {},
      "--password is not supported, because every user of the machine can see the command line: use NATIVE_STORE_REDIS_PASSWORD",
    ],
    [["clear"], {}, "there is no command clear: revoke --all ends all sessions"],
    [["lits"], {}, 'unknown command "lits": did you mean list?'],
    [
      ["stats"],
      { secret: "a secret that is long enough" },
      "secret must be given, as the store is encrypted: PATH; got no secret: use --secret-file or NATIVE_STORE_SECRET",
    ],
  ]) {
    it(args.join(" "), async () => {
      const bench = new Bench();
      await bench.fill([], options);
      const { code, stderr } = await bench.run(args);
      const expected = message.replace("PATH", path.join(fs.realpathSync(bench.storePath), "data.mdb"));
      assert.deepEqual([code, stderr], [2, `native-store: ${expected}\n`]);
      await bench.cleanUp();
    });
  }
});
