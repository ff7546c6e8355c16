"use strict";

const assert = require("node:assert/strict");
const { after, afterEach, before, beforeEach, describe, it } = require("node:test");
const fs = require("node:fs");
const path = require("node:path");
const { RedisStore } = require("..");
const { Bench, asLines, linesOf, session } = require("./support/cli.js");
const {
  newDirectory,
  redisMissing,
  startCluster,
  startServer,
  startTlsServer,
  tlsMissing,
} = require("./support/redis-servers.js");

const byId = (one, other) => (one.sessionId < other.sessionId ? -1 : 1);
const parsed = (text) => linesOf(text).map((line) => JSON.parse(line));
const byIdOfEntry = (one, other) => byId(one.session, other.session);

let bench;
beforeEach(() => {
  bench = new Bench();
});
afterEach(() => bench.cleanUp());

async function answerOf(args, options) {
  const { code, stdout, stderr } = await bench.run(args, options);
  assert.deepEqual({ code, stderr }, { code: 0, stderr: "" });
  return stdout;
}

async function fails(args, exitCode, words, options) {
  const { code, stdout, stderr } = await bench.run(args, options);
  assert.match(stderr, /^native-store: [^\n]+\n$/);
  assert.match(stderr, words);
  assert.equal(code, exitCode, stderr);
  assert.equal(stdout, "");
  return stderr;
}

async function fill(options, sessions) {
  const store = new RedisStore({ sweepInterval: 0, commandTimeout: 30_000, ...options });
  await store.clear();
  await Promise.all(sessions.map((each) => store.create(each)));
  await store.close();
}

describe("native-store, of a store in Redis,", () => {
  for (const [args, words, env] of [
    [["stats", "--redis", "127.0.0.1"], /--redis must be a URL such as redis:\/\/127\.0\.0\.1:6379/],
    [["stats", "--redis", "http://127.0.0.1"], /--redis must be a URL/],
    [["stats", "--redis", "redis://"], /--redis must be a URL .+; got a URL without a host$/m],
    [["stats", "--redis", "redis://h:99999"], /--redis must be a URL .+; got a string that is not a URL$/m],
    [
      ["stats", "--redis", "unix:/tmp/x.sock"],
      /--redis must be a URL .+; got a Unix socket that is not written/,
    ],
    [["stats", "--redis", "unix://:s3cret@/x.sock"], /NATIVE_STORE_REDIS_PASSWORD takes it/],
    [["stats", "--redis", "valkey://:s3cret@127.0.0.1"], /NATIVE_STORE_REDIS_PASSWORD takes it/],
    [["stats", "--redis", "redis://127.0.0.1,nonsense"], /--redis must be a URL/],
    [["stats", "--redis", "redis://:s3cret@127.0.0.1"], /NATIVE_STORE_REDIS_PASSWORD takes it/],
    [["stats", "--redis", "redis://127.0.0.1", "--path", "x"], /--redis and --path exclude each other/],
    [["stats", "--redis-prefix", "x:"], /--redis-prefix goes with --redis/],
    [["stats", "--redis-ca", "x"], /--redis-ca goes with --redis/],
    [
      ["stats", "--redis", "rediss://127.0.0.1", "--redis-ca", "none"],
      /cannot read the certificates of none/,
    ],
    [["verify", "--redis", "redis://127.0.0.1"], /verify is for a FileStore/],
    [["backup", "copy", "--redis", "redis://127.0.0.1"], /backup is for a FileStore/],
    [["import", "--create", "--redis", "redis://127.0.0.1"], /--create is for a FileStore/],
    [["stats"], /NATIVE_STORE_REDIS_URL must be a URL/, { NATIVE_STORE_REDIS_URL: "127.0.0.1" }],
    [["stats"], /are both set/, { NATIVE_STORE_REDIS_URL: "redis://h", NATIVE_STORE_PATH: "p" }],
  ]) {
    it(`refuses ${args.join(" ")}`, async () => {
      fs.writeFileSync(bench.in("empty"), "");
      const said = await fails(args, 2, words, { env });
      assert.ok(!said.includes("s3cret"));
    });
  }

  describe("a single server,", { skip: redisMissing }, () => {
    const socket = path.join(newDirectory(), "redis.sock");
    let server;
    let redis;
    before(async () => {
      server = await startServer({ password: "s3cret", settings: { unixsocket: socket } });
    });
    after(() => server?.kill());
    beforeEach(() => {
      redis = { url: server.url.replace("//", "//:s3cret@") };
    });
    const env = { NATIVE_STORE_REDIS_PASSWORD: "s3cret" };
    const at = (...args) => [...args, "--redis", server.url];

    it("counts, lists and ends sessions", async () => {
      await fill(redis, [session("a"), session("b"), session("c", "ben"), session("d", 42)]);
      const counts = JSON.parse(await answerOf(at("stats", "--json"), { env }));
      assert.deepEqual(counts, { redis: server.url, prefix: "fluid:", live: 4 });
      assert.match(await answerOf(at("stats"), { env }), /^sessions {2}4 live$/m);
      assert.equal(linesOf(await answerOf(at("list"), { env })).length, 4);
      assert.match(await answerOf(at("list", "--user", "ben"), { env }), /^c\tben\t[^\n]+\n$/);
      assert.equal(
        await answerOf(at("revoke", "--user", "ann", "--except", "b"), { env }),
        "1 session ended\n",
      );
      assert.equal(await answerOf(at("revoke", "--id", "d"), { env }), "1 session ended\n");
      const { code, stdout } = await bench.run(at("revoke", "--user", "nobody"), { env });
      assert.deepEqual([code, stdout], [1, "0 sessions ended\n"]);
      assert.equal(linesOf(await answerOf(at("list"), { env })).length, 2);
    });

    it("takes a Unix socket", async () => {
      const url = `unix://${socket}`;
      await fill({ url, password: "s3cret" }, [session("a")]);
      const said = JSON.parse(await answerOf(["stats", "--json", "--redis", `${url}?db=0`], { env }));
      assert.deepEqual([said.redis, said.live], [url, 1]);
      const inUrl = { NATIVE_STORE_REDIS_URL: url.replace("//", "//:s3cret@") };
      assert.match(await answerOf(["stats"], { env: inUrl }), /^sessions {2}1 live$/m);
    });

    it("takes the URLs of Valkey", async () => {
      await fill({ ...redis, url: redis.url.replace("redis:", "valkey:") }, [session("a")]);
      const args = ["stats", "--json", "--redis", server.url.replace("redis:", "valkey:")];
      assert.equal(JSON.parse(await answerOf(args, { env })).live, 1);
    });

    it("takes the URL of the environment, with a password, and shows it without", async () => {
      await fill(redis, [session("a")]);
      const stats = await answerOf(["stats"], { env: { NATIVE_STORE_REDIS_URL: redis.url } });
      assert.match(stats, /\(from NATIVE_STORE_REDIS_URL\)/);
      assert.ok(!stats.includes("s3cret"));
    });

    it("moves sessions from a file, and back", async () => {
      const sessions = [session("a", "ann", { cart: [1] }), session("b", 7), session("é\t", null)];
      await fill(redis, []);
      await bench.fill(sessions);
      const lines = await answerOf(["export", "--quiet"]);
      const { code, stderr } = await bench.run(at("import"), { env, input: lines });
      assert.deepEqual([code, stderr], [0, "3 sessions imported; skipped: 0 existing, 0 expired\n"]);
      const entries = parsed(lines).sort(byIdOfEntry);
      assert.deepEqual(
        entries.map((entry) => entry.session),
        [...sessions].sort(byId),
      );
      assert.deepEqual(parsed(await answerOf(at("export", "--quiet"), { env })).sort(byIdOfEntry), entries);
      const again = await bench.run(at("import"), { env, input: asLines(sessions) });
      assert.equal(again.stderr, "0 sessions imported; skipped: 3 existing, 0 expired\n");
      const back = await bench.run(["import", "--create", "--path", "back"], {
        input: await answerOf(at("export", "--quiet"), { env }),
      });
      assert.equal(back.code, 0, back.stderr);
      assert.deepEqual(
        parsed(await answerOf(["export", "--quiet", "--path", "back"])).sort(byIdOfEntry),
        entries,
      );
    });

    it("keeps creation times, and ends the older sessions", async () => {
      await fill(redis, [session("new")]);
      const createdAt = "2026-01-02T03:04:05.678Z";
      const input = asLines([{ createdAt, session: session("old") }]);
      assert.equal((await bench.run(at("import"), { env, input })).code, 0);
      const entries = parsed(await answerOf(at("export", "--quiet"), { env })).sort(byIdOfEntry);
      assert.equal(entries[1].createdAt, createdAt);
      for (const which of [
        ["--all", "--yes"],
        ["--user", "ann"],
      ]) {
        assert.equal((await bench.run(at("revoke", ...which, "--before", createdAt), { env })).code, 1);
      }
      assert.equal(
        await answerOf(at("revoke", "--user", "ann", "--before", "1h"), { env }),
        "1 session ended\n",
      );
      assert.match(await answerOf(at("list"), { env }), /^new\t[^\n]+\n$/);
    });

    it("uses only the prefix, and decrypts with the secret", async () => {
      const secret = "a secret of some length";
      await fill(redis, [session("open")]);
      await fill({ ...redis, prefix: "two:", secret }, [session("sealed")]);
      const sealed = { env: { ...env, NATIVE_STORE_SECRET: secret } };
      assert.match(await answerOf(at("list", "--redis-prefix", "two:"), sealed), /^sealed\tann\t[^\n]+\n$/);
      assert.match(await answerOf(at("list"), { env }), /^open\t[^\n]+\n$/);
    });

    it("reports a refused login, and a missing server", async () => {
      const said = await fails(at("stats"), 3, /ERR_STORE_UNAVAILABLE/);
      assert.ok(!said.includes("s3cret"));
      const away = await startServer();
      await away.kill();
      await fails(["stats", "--redis", away.url], 3, /ERR_STORE_(UNAVAILABLE|TIMEOUT)/);
    });
  });

  it("reads every node of a cluster", { skip: redisMissing }, async () => {
    const cluster = await startCluster();
    const sessions = Array.from({ length: 50 }, (_, at) => session(`s${at}`));
    await fill({ cluster: cluster.urls }, sessions);
    const redis = ["--redis", cluster.urls.slice(0, 2).join(",")];
    assert.equal(JSON.parse(await answerOf(["stats", "--json", ...redis])).live, 50);
    assert.equal(linesOf(await answerOf(["list", ...redis])).length, 50);
    assert.equal(await answerOf(["revoke", "--user", "ann", ...redis]), "50 sessions ended\n");
    await cluster.stop();
  });

  it("trusts the given authority", { skip: tlsMissing }, async () => {
    const server = await startTlsServer();
    const { files } = server.certificates;
    const redis = ["--redis", server.url, "--redis-ca", files.ca];
    assert.equal(JSON.parse(await answerOf(["stats", "--json", ...redis])).live, 0);
    await server.kill();
  });
});
