"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const { after, afterEach, before, beforeEach, describe, it } = require("node:test");
const { MongoStore, createWebCryptoAdapter } = require("connect-mongo");
const { BSON } = require("mongodb");
const { finish } = require("./support/cli.js");
const { startCuttingProxy } = require("./support/cutting-proxy.js");
const { ImportBench, summary } = require("./support/import-bench.js");
const { describeImports } = require("./support/import-suite.js");
const { startMongo } = require("./support/mongo-server.js");
const { assertStillLoggedIn, logIn } = require("./support/moved-app.js");
const { HOUR, connectSession, installPackages } = require("./support/old-stores.js");

const DAY = 24 * HOUR;
const IS_WINDOWS = process.platform === "win32";
const PACKAGE = ["--from", "connect-mongo"];

let bench;
let server;
before(async () => {
  server = await startMongo();
});
after(() => server.stop());
beforeEach(() => {
  bench = new ImportBench();
  server.clear();
  server.collection();
});
afterEach(() => bench.cleanUp());

const getArgs = (...more) => ["import", "--create", ...PACKAGE, server.url, ...more];
const imports = (...more) => bench.imports(getArgs(...more));

function insert(_id, document, names = []) {
  server.collection(...names).set(_id, { _id, expires: new Date(Date.now() + HOUR), ...document });
}

/** Calls connect-mongo with these options. */
async function withStore(options, use) {
  const store = MongoStore.create({ mongoUrl: server.url, ...options });
  const call = (method, ...args) =>
    new Promise((resolve, reject) => {
      store[method](...args, (error, result) => (error ? reject(error) : resolve(result)));
    });
  try {
    return await use(call);
  } finally {
    await store.close();
  }
}

describe("native-store import --from connect-mongo, of its options,", () => {
  for (const [args, words, env] of [
    [[], /--from connect-mongo needs the <url> of its store, or NATIVE_STORE_FROM_URL/],
    [
      ["127.0.0.1"],
      /the URL of the old store must be such as mongodb:\/\/user@127\.0\.0\.1:27017\/database$/m,
    ],
    [
      ["mongodb://ann:s3cret@a,b/db"],
      /a password on the command line .+: NATIVE_STORE_FROM_URL takes the URL/,
    ],
    [["mongodb://h/db?tlsCertificateKeyFilePassword=s3cret"], /a password on the command line/],
    [[], /cannot read mongodb:\/\/h:x\/: /, { code: 3, NATIVE_STORE_FROM_URL: "mongodb://a:s3cret@h:x/" }],
    [["mongodb://h", "--ttl", "0"], /--ttl must be a whole number of milliseconds from 1; got "0"/],
    [["mongodb://h", "--schema", "x"], /--schema goes with --from connect-pg-simple$/m],
  ]) {
    it(`refuses ${["import", ...PACKAGE, ...args].join(" ")}, and makes nothing`, async () => {
      const options = { code: env?.code, env };
      const said = await bench.refuses(["import", "--create", ...PACKAGE, ...args], words, options);
      assert.doesNotMatch(said, /s3cret/);
      assert.deepEqual(fs.readdirSync(bench.directory), []);
    });
  }

  it("uses the app's driver, and names the package to install if there is none", async () => {
    const env = bench.hiding("mongodb");
    await bench.refuses(
      getArgs(),
      /takes the package mongodb, and there is none; npm install mongodb here$/m,
      { env },
    );
    const own =
      "exports.MongoClient = class { constructor() { throw new Error('the own one of the app'); } };";
    installPackages(bench.directory, { mongodb: own });
    await bench.refuses(getArgs(), /cannot read mongodb:\S+\/app: the own one of the app$/m, { code: 3 });
  });
});

describe("native-store import --from connect-mongo,", () => {
  for (const [form, of] of Object.entries({
    text: JSON.stringify,
    "objects (stringify: false)": (each) => each,
  })) {
    describeImports(`of sessions as ${form},`, {
      getBench: () => bench,
      getArgs,
      fill: (sessions) => {
        for (const [sid, each] of Object.entries(sessions)) {
          const end = each?.cookie?.expires;
          insert(sid, { session: of(each), ...(end && { expires: new Date(end) }) });
        }
      },
      traceOf: () => JSON.stringify([...server.collection()]) + server.commands.includes("update"),
      noun: "document",
      nameOfBad: /document bad-\w+/,
      isUtf8: form !== "text",
    });
  }

  for (const stringify of [true, false]) {
    it(`keeps users of an app with the package logged in, stringify: ${stringify}`, async () => {
      const store = MongoStore.create({ mongoUrl: server.url, stringify });
      const browsers = await logIn(store);
      await store.close();
      assert.equal(await imports(), summary(browsers.length));
      await assertStillLoggedIn(browsers, bench);
    });

    it(`imports sessions that the package wrote with stringify: ${stringify}`, async () => {
      const given = connectSession({ name: "Zoë", list: [1, null] });
      const [touched, later] = [connectSession({ n: 2 }), new Date(Date.now() + 5 * HOUR)];
      const read = await withStore(
        { stringify, ttl: 600, touchAfter: 60, timestamps: true },
        async (call) => {
          await call("set", "a", {
            ...given,
            cookie: { ...given.cookie, expires: new Date(given.cookie.expires) },
          });
          await call("set", "endless", connectSession({}, { maxAge: null }));
          await call("set", "touched", touched);
          await call("touch", "touched", { cookie: { expires: later } });
          return call("get", "a");
        },
      );
      assert.equal(await imports(), summary(3));
      const { lastModified, ...old } = JSON.parse(JSON.stringify(read));
      assert.ok(lastModified);
      assert.deepEqual(await bench.connectGet("a"), old);
      assert.deepEqual(old, given);
      const left = Date.parse((await bench.stored("endless")).expires) - Date.now();
      assert.ok(Math.abs(left - 600_000) < 60_000, `${left}`);
      assert.equal((await bench.connectGet("touched")).cookie.expires, later.toISOString());
    });
  }

  it("leaves out encrypted sessions, and reports them", async () => {
    await withStore({ crypto: { secret: "a secret of theirs" } }, async (call) => {
      await call("set", "old-way", connectSession({ card: "1234" }));
    });
    for (const encoding of ["base64", "base64url", "hex"]) {
      const cryptoAdapter = createWebCryptoAdapter({ secret: "a secret of theirs", iterations: 1, encoding });
      await withStore({ cryptoAdapter }, (call) => call("set", encoding, connectSession()));
    }
    insert("good", { session: JSON.stringify(connectSession()) });
    const { code, stderr } = await bench.run(getArgs());
    assert.equal(code, 1);
    const [counts, note, reasons] = stderr.split("\n");
    assert.equal(`${counts}\n${note}\n`, summary(1, { unreadable: 4 }));
    const names = "document old-way, document base64, document base64url, …";
    assert.equal(
      reasons,
      `native-store: left out 4 documents: 4 encrypted, which import cannot undo (${names})`,
    );
  });

  it("leaves out values of other types", async () => {
    const session = JSON.stringify(connectSession());
    insert(new BSON.ObjectId("0123456789abcdef01234567"), { session });
    insert("date", { session, expires: "tomorrow" });
    insert("none", {});
    insert("text", { session: "s3cret" });
    insert("binary", { session: new BSON.Binary(Buffer.from(session)) });
    const { code, stderr } = await bench.run(getArgs());
    assert.equal(code, 1);
    assert.match(stderr, /1 with an invalid id: [^(]+\(document 0123456789abcdef01234567\)/);
    assert.match(stderr, /1 without an end time \(document date\)/);
    assert.match(stderr, /1 not text \(document none\)/);
    assert.match(stderr, /1 not JSON \(document text\)/);
    assert.match(stderr, /1 not a JSON object \(document binary\)/);
    assert.doesNotMatch(stderr, /s3cret/);
  });

  it("keeps the creation time if the option timestamps stored it", async () => {
    const [session, createdAt] = [JSON.stringify(connectSession()), new Date("2026-01-02T03:04:05.678Z")];
    insert("dated", { session, createdAt });
    insert("spoilt", { session, createdAt: "a text" });
    insert("undated", { session });
    const before = Date.now();
    assert.equal(await imports(), summary(3));
    const store = bench.open();
    for await (const entry of store.sessions()) {
      if (entry.session.sessionId === "dated") assert.deepEqual(entry.createdAt, createdAt);
      else assert.ok(entry.createdAt >= before && entry.createdAt <= Date.now());
    }
    await store.close();
  });

  it("converts values without a JSON form as the app's JSON would", async () => {
    const id = new BSON.ObjectId();
    const at = new Date(1e12);
    insert("a", { session: { ...connectSession(), id, at, more: { long: BSON.Long.fromNumber(7) } } });
    assert.equal(await imports("--user-field", "id"), summary(1, { hasUsers: true }));
    const { cookie, ...data } = await bench.connectGet("a");
    assert.deepEqual(data, { id: id.toHexString(), at: at.toISOString(), more: { long: 7 } });
    assert.equal((await bench.stored("a")).userId, id.toHexString());
  });

  it("ends a session without expires with its cookie, or in two weeks, and not before --ttl", async () => {
    const dated = connectSession({}, { maxAge: 3 * DAY });
    const left = async (sid) => Date.parse((await bench.stored(sid)).expires) - Date.now();
    insert("dated", { session: JSON.stringify(dated) });
    insert("endless", { session: JSON.stringify(connectSession({}, { maxAge: null })) });
    for (const document of server.collection().values()) delete document.expires;
    insert("expired", { session: JSON.stringify(connectSession()), expires: new Date(Date.now() - 1) });
    assert.equal(await imports(), summary(2, { expired: 1 }));
    assert.equal((await bench.stored("dated")).expires, dated.cookie.expires);
    assert.ok(Math.abs((await left("endless")) - 14 * DAY) < 60_000);
    await imports("--ttl", String(5 * DAY), "--replace");
    assert.ok(Math.abs((await left("dated")) - 5 * DAY) < 60_000);
    assert.ok(Math.abs((await left("endless")) - 5 * DAY) < 60_000);
  });

  it("reads another collection of another database, and lists the existing ones", async () => {
    insert("a", { session: JSON.stringify(connectSession()) }, ["logins", "other"]);
    assert.equal(await imports("--database", "other", "--collection", "logins"), summary(1));
    server.collection("users");
    await bench.refuses(
      getArgs("--collection", "logins"),
      /the database app of mongodb:\S+ has no collection logins: it has sessions, users; --database and --collection/,
    );
    await bench.refuses(
      getArgs("--database", "none"),
      /the database none of .+: it has none that this user can read/,
    );
  });

  it("takes a URL from the environment, and reports why it cannot read", async () => {
    insert("a", { session: JSON.stringify(connectSession()) });
    const args = ["import", "--create", ...PACKAGE];
    assert.equal(await bench.imports(args, { env: { NATIVE_STORE_FROM_URL: server.url } }), summary(1));
    server.failOn("find", "not authorized on app to execute command");
    const words =
      /cannot read mongodb:\S+\/app: not authorized on app to execute command; stopped after 0 sessions/;
    await bench.refuses(getArgs(), words, { code: 3 });
  });

  it("reports what it had imported when the connection is lost, and completes when it is run again", async () => {
    for (let at = 0; at < 4000; at++) insert(`s${at}`, { session: JSON.stringify(connectSession()) });
    const proxy = await startCuttingProxy(server.port, 500_000);
    const url = server.url.replace(`:${server.port}`, `:${proxy.port}`);
    const { code, stderr } = await bench.run(["import", "--create", ...PACKAGE, url]);
    proxy.stop();
    assert.equal(code, 3);
    const [, count] =
      /^native-store: cannot read \S+: .+; stopped after ([\d,]+) sessions imported; [^\n]+\n$/.exec(
        stderr,
      ) ?? [];
    const had = Number(count?.replaceAll(",", ""));
    assert.ok(had > 0 && had < 4000, stderr);
    assert.equal(await imports(), summary(4000 - had, { existing: count }));
  });

  it("stops at a signal while the server does not answer", { skip: IS_WINDOWS }, async () => {
    server.holdOn("find");
    const child = bench.start(getArgs());
    const ending = finish(child);
    await server.held;
    child.kill("SIGINT");
    const { signal, stderr } = await ending;
    assert.equal(signal, "SIGINT");
    assert.match(stderr, /^native-store: stopped after 0 sessions imported; /);
  });
});
