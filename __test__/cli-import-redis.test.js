"use strict";

const assert = require("node:assert/strict");
const { once } = require("node:events");
const fs = require("node:fs");
const net = require("node:net");
const { after, afterEach, before, beforeEach, describe, it } = require("node:test");
const { RedisStore } = require("connect-redis");
const { createClient } = require("redis");
const { finish } = require("./support/cli.js");
const { startCuttingProxy } = require("./support/cutting-proxy.js");
const { ImportBench, summary } = require("./support/import-bench.js");
const { describeImports } = require("./support/import-suite.js");
const { HOUR, connectSession, installPackages } = require("./support/old-stores.js");
const { assertStillLoggedIn, logIn } = require("./support/moved-app.js");
const {
  redisMissing,
  startCluster,
  startServer,
  startTlsServer,
  tlsMissing,
} = require("./support/redis-servers.js");

const DAY = 24 * HOUR;
const IS_WINDOWS = process.platform === "win32";
const PACKAGE = ["--from", "connect-redis"];
const CLIENTS = ["redis", "ioredis"];

let bench;
beforeEach(() => {
  bench = new ImportBench();
});
afterEach(() => bench.cleanUp());

const textOf = (each) => JSON.stringify(each);
const importFrom = (url, ...more) => ["import", "--create", ...PACKAGE, url, ...more];

/** Makes an import use that client. */
const taking = (client) => bench.hiding(...CLIENTS.filter((name) => name !== client));

/** About `millis` from now. */
function assertEndsIn(expires, millis) {
  const left = Date.parse(expires) - Date.now();
  assert.ok(Math.abs(left - millis) < 60_000, `${expires} is in ${left} ms, not in ${millis}`);
}

describe("native-store import --from connect-redis, of its options,", () => {
  for (const [args, words, env] of [
    [[], /--from connect-redis needs the <url> of its store, or NATIVE_STORE_FROM_URL/],
    [["postgres://h"], /the URL of the old store must be such as redis:\/\/127\.0\.0\.1:6379\/0$/m],
    [["127.0.0.1:6379"], /the URL of the old store must be such as redis:/],
    [["redis://"], /the URL of the old store must be a URL such as .+; got a URL without a host$/m],
    [["redis://h/x"], /the URL of the old store must be .+; got a URL whose database is not a number$/m],
    [["redis://:s3cret@h"], /a password on the command line .+: NATIVE_STORE_FROM_URL takes the URL/],
    [[], /the URL of the old store must be/, { NATIVE_STORE_FROM_URL: "redis://:s3cret@h:99999" }],
    [["redis://h", "--ttl", "1d"], /--ttl must be a whole number of milliseconds from 1; got "1d"/],
    [["redis://h", "--table", "x"], /--table goes with --from connect-sqlite3 or connect-pg-simple/],
  ]) {
    it(`refuses ${["import", ...PACKAGE, ...args].join(" ")}, and makes nothing`, async () => {
      const said = await bench.refuses(["import", "--create", ...PACKAGE, ...args], words, { env });
      assert.doesNotMatch(said, /s3cret/);
      assert.deepEqual(fs.readdirSync(bench.directory), []);
    });
  }

  it("names the package to install if there is no client, or one that is too old", async () => {
    const env = bench.hiding(...CLIENTS);
    const args = importFrom("redis://127.0.0.1:1");
    await bench.refuses(args, /the package redis or ioredis, and there is none; npm install redis here$/m, {
      env,
    });
    installPackages(bench.directory, { redis: "exports.createClient = () => {};" });
    await bench.refuses(args, /redis is there, but does not load: it is older than redis 4; npm install/, {
      env,
    });
  });
});

describe("native-store import --from connect-redis,", { skip: redisMissing }, () => {
  let server;
  let redis;
  before(async () => {
    server = await startServer();
    redis = await server.connect();
  });
  after(() => server?.kill());
  beforeEach(() => redis.call("FLUSHALL"));

  const imports = (...more) => bench.imports(importFrom(server.url, ...more));

  /** In the form of connect-redis. */
  async function insert(sid, each, { prefix = "sess:", ttl = 3600 } = {}) {
    const end = each?.cookie?.expires;
    const seconds = end ? Math.ceil((Date.parse(end) - Date.now()) / 1000) : ttl;
    await redis.call("SET", prefix + sid, textOf(each), "EX", seconds);
  }

  describeImports("of what every package has to pass,", {
    getBench: () => bench,
    getArgs: () => importFrom(server.url),
    fill: async (sessions) => {
      await Promise.all(Object.entries(sessions).map((each) => insert(...each)));
    },
    traceOf: async () => {
      const keys = (await redis.call("KEYS", "*")).sort();
      return Promise.all(
        keys.map(async (key) => [key, await redis.call("GET", key), (await redis.call("TTL", key)) > 0]),
      );
    },
    noun: "key",
    nameOfBad: /key sess:bad-\w+/,
  });

  for (const client of CLIENTS) {
    describe(`by ${client},`, () => {
      const run = (args, words, options) => {
        const env = { ...taking(client), ...options?.env };
        return words === undefined
          ? bench.imports(args, { env })
          : bench.refuses(args, words, { ...options, env });
      };

      it("imports sessions that the package wrote", async () => {
        const own = createClient({ url: server.url });
        await own.connect();
        const store = new RedisStore({ client: own, ttl: 600 });
        const given = connectSession({ name: "Zoë \ud800", list: [1, null] });
        await store.set("a", given);
        await store.set("endless", connectSession({}, { maxAge: null }));
        await store.set("touched", connectSession({ n: 2 }));
        await store.touch("touched", { cookie: { expires: new Date(Date.now() + 5 * HOUR) } });
        await own.close();

        assert.equal(await run(importFrom(server.url)), summary(3));
        assert.deepEqual(await bench.connectGet("a"), given);
        assert.equal((await bench.connectGet("endless")).cookie.expires, null);
        assertEndsIn((await bench.stored("endless")).expires, 600_000);
        assertEndsIn((await bench.connectGet("touched")).cookie.expires, 5 * HOUR);
      });

      it("reads the database of the URL, and many keys between those of others", async () => {
        await redis.call("SELECT", "7");
        const sids = Array.from({ length: 1500 }, (_, at) => `s${at}`);
        await Promise.all(sids.map((sid) => insert(sid, connectSession())));
        await Promise.all(sids.map((sid) => redis.call("SET", `other:${sid}`, "no session")));
        await redis.call("SELECT", "0");
        assert.equal(await run(importFrom(`${server.url}/7`)), summary(1500));
        assert.equal(await run(importFrom(server.url)), summary(0));
      });

      it("reports why it cannot read", async () => {
        const away = importFrom("redis://127.0.0.1:1");
        await run(away, /cannot read redis:\/\/127\.0\.0\.1:1: connect ECONNREFUSED/, { code: 3 });
        await redis.call("ACL", "SETUSER", "ann", "on", ">s3cret", "~*", "+@all", "-get");
        const args = ["import", "--create", ...PACKAGE];
        const as = (login) => ({ NATIVE_STORE_FROM_URL: server.url.replace("//", `//${login}@`) });
        const said = await run(args, /cannot read redis:\S+: WRONGPASS/, { code: 3, env: as("ann:wr0ng") });
        assert.doesNotMatch(said, /wr0ng/);
        await insert("a", connectSession());
        await run(args, /cannot read redis:\S+: NOPERM/, { code: 3, env: as("ann:s3cret") });
        await redis.call("ACL", "SETUSER", "ann", "+get");
        assert.equal(await run(args, undefined, { env: as("ann:s3cret") }), summary(1));
        await redis.call("ACL", "DELUSER", "ann");
      });

      it("reports what it had imported when the connection is lost, and completes when it is run again", async () => {
        const sids = Array.from({ length: 4000 }, (_, at) => `s${at}`);
        await Promise.all(sids.map((sid) => insert(sid, connectSession())));
        const proxy = await startCuttingProxy(server.port, 400_000);
        const env = taking(client);
        const { code, stderr } = await bench.run(importFrom(`redis://127.0.0.1:${proxy.port}`), { env });
        proxy.stop();
        assert.equal(code, 3);
        const [, count] =
          /^native-store: cannot read \S+: .+; stopped after ([\d,]+) sessions imported; [^\n]+\n$/.exec(
            stderr,
          ) ?? [];
        const had = Number(count?.replaceAll(",", ""));
        assert.ok(had > 0 && had < 4000, stderr);
        assert.equal(await run(importFrom(server.url)), summary(4000 - had, { existing: count }));
      });

      it("reads over TLS, with an authority from NODE_EXTRA_CA_CERTS", { skip: tlsMissing }, async () => {
        const secure = await startTlsServer();
        await secure.call("SET", "sess:a", textOf(connectSession()), "EX", "100");
        await run(importFrom(secure.url), /cannot read rediss:\S+: .*certificate/, { code: 3 });
        const env = { NODE_EXTRA_CA_CERTS: secure.certificates.files.ca };
        assert.equal(await run(importFrom(secure.url), undefined, { env }), summary(1));
        await secure.kill();
      });

      it("reads all primaries of a cluster, whichever node it is given", async () => {
        const cluster = await startCluster();
        const nodes = cluster.nodes.slice(0, 3);
        let made = 0;
        for (const node of nodes) {
          for (let at = 0; at < 200; at++) {
            const answer = await node
              .call("SET", `sess:s${at}`, textOf(connectSession()), "EX", "1000")
              .catch(({ message }) => message);
            if (answer === "OK") made++;
          }
        }
        assert.equal(made, 200);
        assert.equal(await run(importFrom(cluster.urls[4])), summary(200));
        await cluster.stop();
      });
    });
  }

  for (const disableTTL of [false, true]) {
    it(`keeps users of an app with the package logged in, disableTTL: ${disableTTL}`, async () => {
      const own = createClient({ url: server.url });
      await own.connect();
      const browsers = await logIn(new RedisStore({ client: own, disableTTL }));
      await own.close();
      assert.equal(await imports(), summary(browsers.length));
      await assertStillLoggedIn(browsers, bench);
    });
  }

  it("ends a session whose key has no TTL with its cookie, or in a day", async () => {
    const own = createClient({ url: server.url });
    await own.connect();
    const store = new RedisStore({ client: own, disableTTL: true });
    const given = connectSession({ n: 1 }, { maxAge: 3 * DAY });
    await store.set("dated", given);
    await store.set("endless", connectSession({ n: 2 }, { maxAge: null }));
    await own.close();
    const old = connectSession({}, { from: Date.now() - 2 * HOUR });
    await redis.call("SET", "sess:old", textOf(old));

    assert.equal(await imports(), summary(2, { expired: 1 }));
    assert.equal((await bench.stored("dated")).expires, given.cookie.expires);
    assert.deepEqual(await bench.connectGet("dated"), given);
    assertEndsIn((await bench.stored("endless")).expires, DAY);
    assert.equal((await bench.connectGet("endless")).n, 2);
  });

  it("lets a session whose key has no TTL live at least for --ttl", async () => {
    const dated = connectSession({}, { maxAge: 3 * DAY });
    await redis.call("SET", "sess:dated", textOf(dated));
    await redis.call("SET", "sess:endless", textOf(connectSession({}, { maxAge: null })));
    // An app with rolling cookies: the stored cookies are old.
    await redis.call("SET", "sess:old", textOf(connectSession({ n: 3 }, { from: Date.now() - 2 * HOUR })));
    await insert("short", connectSession({}, { maxAge: null }), { ttl: 60 });

    assert.equal(await imports("--ttl", String(2 * HOUR)), summary(4));
    assert.equal((await bench.stored("dated")).expires, dated.cookie.expires);
    assertEndsIn((await bench.stored("endless")).expires, 2 * HOUR);
    assertEndsIn((await bench.connectGet("old")).cookie.expires, 2 * HOUR);
    assertEndsIn((await bench.stored("short")).expires, 60_000);
  });

  it("reads another prefix, taken literally", async () => {
    await insert("a", connectSession({ n: 1 }), { prefix: "app[1]*?\\:" });
    await insert("b", connectSession(), { prefix: "app1x:" });
    await insert("c", connectSession());
    assert.equal(await imports("--from-prefix", "app[1]*?\\:", "--prefix", "new:"), summary(1));
    assert.deepEqual(await bench.storedIds(), ["new:a"]);
    await redis.call("FLUSHALL");
    await insert("bare", connectSession(), { prefix: "" });
    assert.equal(await imports("--from-prefix", ""), summary(1));
    assert.equal((await bench.connectGet("bare")).cookie.path, "/");
  });

  it("leaves out values that are not sessions, also those that connect-redis ignores", async () => {
    await redis.call("SET", "sess:empty", "");
    await redis.call("HSET", "sess:hash", "a", "1");
    await redis.call("SET", "sess:text", "no JSON, s3cret");
    await redis.call("SET", "sess:", textOf(connectSession()));
    await insert("good", connectSession());
    const { code, stderr } = await bench.run(importFrom(server.url));
    assert.equal(code, 1);
    assert.match(stderr, /^1 session imported; skipped: 0 existing, 0 expired, 3 unreadable\n/);
    assert.match(stderr, /1 not text \(key sess:hash\)/);
    assert.match(stderr, /1 not JSON \(key sess:text\)/);
    assert.match(stderr, /1 with an invalid id: [^(]+\(key sess:\)/);
    assert.doesNotMatch(stderr, /s3cret/);
    assert.deepEqual(await bench.storedIds(), ["good"]);
  });

  it("imports into Redis, on the same server too", async () => {
    for (const sid of ["a", "b"]) await insert(sid, connectSession());
    const to = ["import", ...PACKAGE, server.url, "--redis", server.url];
    assert.equal(await bench.imports(to), summary(2));
    assert.equal(await bench.imports(to), summary(0, { existing: 2 }));
    const { stdout } = await bench.run(["list", "--redis", server.url]);
    assert.deepEqual([...stdout.matchAll(/^[^\t]+/gm)].map(([id]) => id).sort(), ["a", "b"]);
  });

  it("stops at a signal while the server does not answer", { skip: IS_WINDOWS }, async () => {
    const silent = net.createServer().listen(0, "127.0.0.1");
    await once(silent, "listening");
    const child = bench.start(importFrom(`redis://127.0.0.1:${silent.address().port}`));
    const ending = finish(child);
    const [connection] = await once(silent, "connection");
    child.kill("SIGINT");
    assert.equal((await ending).signal, "SIGINT");
    connection.destroy();
    silent.close();
  });
});
