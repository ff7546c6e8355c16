"use strict";

// Credentials from a function of the app, for each connection.

const assert = require("node:assert/strict");
const { execFileSync } = require("node:child_process");
const path = require("node:path");
const { after, before, describe, it } = require("node:test");
const { Worker } = require("node:worker_threads");
const { RedisStore } = require("..");
const {
  redisMissing,
  startCluster,
  startSentinels,
  startServer,
  until,
} = require("./support/redis-servers.js");
const { session } = require("./conformance.js");

const ROOT = path.join(__dirname, "..");
const RULES = "~* &* +@all";
// The deadline of calls that must fail by it. The server's answer must arrive within it, too.
const DEADLINE = 1500;
const LONGEST = 30_000;

const fails = (call, words) =>
  assert.rejects(call, (error) => {
    assert.equal(error.code, "ERR_STORE_UNAVAILABLE", error.message);
    assert.match(error.message, words);
    assert.equal(error.outcome, undefined);
    return true;
  });

async function works(store) {
  const one = session();
  await store.create(one);
  assert.deepEqual(await store.get(one.sessionId), one);
  await store.delete(one.sessionId);
}

describe("a RedisStore with a function for credentials", { skip: redisMissing }, () => {
  let server;
  const open = (credentials, options) =>
    new RedisStore({ url: server.url, commandTimeout: LONGEST, sweepInterval: 0, credentials, ...options });
  const isIn = (store) =>
    store.get("a").then(
      () => true,
      () => false,
    );
  before(async () => {
    server = await startServer({
      users: { default: "off", admin: `on >root ${RULES}`, app: `on >first ${RULES}` },
    });
    server.login = ["admin", "root"];
  });
  after(() => server?.kill());

  it("calls it for each connection, also the event loop's, so that a token may expire", async () => {
    let [password, asked] = ["first", 0];
    const store = open(async () => {
      asked++;
      return { username: "app", password };
    });
    await works(store);
    await until(() => asked === 2, "both connections are there");
    const clients = async () =>
      (await server.call("CLIENT", "LIST")).split("\n").filter((line) => line.includes("user=app")).length;
    await until(async () => (await clients()) === 2, "both are logged in");
    password = "second";
    await server.call("ACL", "SETUSER", "app", "resetpass", ">second");
    await server.call("CLIENT", "KILL", "USER", "app");
    await until(() => isIn(store), "it is back");
    await works(store);
    await until(() => asked >= 4, "it was asked for both again");
    await store.close();
    await server.call("ACL", "SETUSER", "app", "resetpass", ">first");
  });

  it("accepts them without a promise, and for the default user", async () => {
    await server.call("ACL", "SETUSER", "default", "on", ">third", ...RULES.split(" "));
    for (const credentials of [
      () => ({ username: "app", password: "first" }),
      () => ({ password: "third" }),
    ]) {
      const store = open(credentials);
      await works(store);
      await store.close();
    }
    await server.call("ACL", "SETUSER", "default", "off");
  });

  it("reports why there are none, and retries", async () => {
    const good = { username: "app", password: "first" };
    const cases = [
      [
        () => Promise.reject(new Error("the token service is down")),
        /: credentials: the token service is down$/,
      ],
      [() => undefined, /: credentials: expected an object with a password, .+; got undefined$/],
      [() => ({ ...good, password: "" }), /: credentials: password must be a non-empty string; got an empty/],
      [() => ({ ...good, username: 7 }), /: credentials: username must be a non-empty string; got a number$/],
      [() => JSON.parse("{"), /: credentials: .*JSON/],
      [() => Promise.reject(null), /: credentials: null$/],
      [
        () =>
          Promise.reject({
            get message() {
              throw new Error("nobody reads me");
            },
          }),
        /: credentials: an error that throws when it is read$/,
      ],
      [() => ({ ...good, password: "wrong" }), /WRONGPASS/],
    ];
    const check = async ([bad, words]) => {
      let give = bad;
      const store = open(() => give(), { commandTimeout: DEADLINE });
      await Promise.all([fails(store.get("a"), words), fails(store.create(session()), words)]);
      give = () => good;
      await until(() => isIn(store), "it is let in");
      await works(store);
      await store.close();
    };
    await Promise.all(cases.map(check));
  });

  it("waits for it at most as long as for a connection", async () => {
    const store = open(() => new Promise(() => {}), { connectTimeout: 500, commandTimeout: DEADLINE });
    await fails(store.get("a"), /: credentials: no answer within 500 ms$/);
    await store.close();
  });

  it("calls it for each node of a cluster, and for the servers behind sentinels", async () => {
    for (const [start, where, least] of [
      [startCluster, ({ urls }) => ({ cluster: urls }), 3],
      [startSentinels, ({ urls }) => ({ sentinel: { urls, master: "sessions" } }), 2],
    ]) {
      const servers = await start();
      let asked = 0;
      const credentials = () => {
        asked++;
        return { username: "default", password: "any" };
      };
      const store = new RedisStore({
        ...where(servers),
        sweepInterval: 0,
        credentials,
        commandTimeout: LONGEST,
      });
      await Promise.all(Array.from({ length: 30 }, () => works(store)));
      await until(() => asked >= least, "it was asked for each");
      await store.close();
      await servers.stop();
    }
  });

  it("calls it on the thread of the store", async () => {
    const script = `
      const { parentPort, threadId } = require("node:worker_threads");
      const { RedisStore } = require(${JSON.stringify(ROOT)});
      const threads = new Set();
      const credentials = async () => (threads.add(threadId), { username: "app", password: "first" });
      const url = ${JSON.stringify(server.url)};
      const store = new RedisStore({ url, credentials, commandTimeout: ${LONGEST} });
      store.get("a").then((found) => parentPort.postMessage([found, [...threads].join(), threadId]));`;
    const worker = new Worker(script, { eval: true });
    const [found, threads, threadId] = await new Promise((resolve, reject) => {
      worker.once("message", resolve).once("error", reject);
    });
    assert.deepEqual([found, threads], [null, String(threadId)]);
    // At any point of its requests.
    await worker.terminate();
  });

  it("never keeps a process alive, closed or not, answered or not", () => {
    const never = "() => new Promise(() => {})";
    const good = "async () => ({ username: 'app', password: 'first' })";
    for (const [credentials, use, commandTimeout] of [
      [never, "store.close()", LONGEST],
      [never, "store.get('a').catch(() => {})", DEADLINE],
      [good, "store.get('a')", LONGEST],
      [good, "store.get('a').then(() => store.close())", LONGEST],
    ]) {
      const script = `const { RedisStore } = require(${JSON.stringify(ROOT)});
        const store = new RedisStore({
          url: ${JSON.stringify(server.url)}, credentials: ${credentials}, connectTimeout: 2 ** 31 - 1,
          commandTimeout: ${commandTimeout},
        });
        Promise.resolve(${use}).then(() => console.log("end"));`;
      const said = execFileSync(process.execPath, ["-e", script], { encoding: "utf8", timeout: 20_000 });
      assert.equal(said, "end\n");
    }
  });

  it("lets a store that the function references be collected, but not during a call", () => {
    const script = `const { RedisStore } = require(${JSON.stringify(ROOT)});
      const { setTimeout: sleep } = require("node:timers/promises");
      const collected = [];
      const registry = new FinalizationRegistry((name) => collected.push(name));
      async function use() {
        const app = { store: undefined, token: () => ({ username: "app", password: "first" }) };
        app.store = new RedisStore({
          url: ${JSON.stringify(server.url)}, sweepInterval: 0, commandTimeout: ${LONGEST},
          credentials: async () => (await sleep(50), gc(), app.token()),
        });
        registry.register(app.store, "store");
        const { store } = app;
        return store.get("a");
      }
      (async () => {
        const call = use();
        await new Promise(setImmediate);
        gc();
        console.log(await call);
        for (let round = 0; round < 200 && collected.length === 0; round++) { gc(); await sleep(10); }
        console.log(collected.join());
      })();`;
    const said = execFileSync(process.execPath, ["--expose-gc", "-e", script], {
      encoding: "utf8",
      timeout: 60_000,
    });
    assert.equal(said, "null\nstore\n");
  });
});
