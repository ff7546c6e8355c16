"use strict";

// Tests of the servers and the proxy of other tests.

const assert = require("node:assert/strict");
const { execFile, fork, spawnSync } = require("node:child_process");
const { once } = require("node:events");
const net = require("node:net");
const path = require("node:path");
const { after, describe, it } = require("node:test");
const { promisify } = require("node:util");
const {
  redisMissing,
  startCluster,
  startProxy,
  startSentinels,
  startServer,
  startTlsServer,
  tlsMissing,
  until,
} = require("./support/redis-servers.js");
const { Client } = require("./support/redis/client.js");

const run = promisify(execFile);

/** Runs redis-cli, as an independent client. */
async function cli(port, ...args) {
  const { stdout } = await run("redis-cli", ["-p", port, ...args]);
  return stdout.trim();
}

const isRunning = (pid) => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

describe("a test server", { skip: redisMissing }, () => {
  it("keeps acknowledged writes through a kill, on the same port", async () => {
    const server = await startServer({ isDurable: true });
    assert.equal(await cli(server.port, "SET", "a", "1"), "OK");
    const { pid } = server;
    await server.kill();
    assert.equal(isRunning(pid), false);
    await assert.rejects(cli(server.port, "PING"), /refused/);
    await server.start();
    assert.equal(await cli(server.port, "GET", "a"), "1");
    assert.equal(await server.call("GET", "a"), "1");
    await server.kill();
  });

  it("does not answer while it is stopped", async () => {
    const server = await startServer();
    await server.pause();
    let isAnswered = false;
    const client = await server.connect();
    const answer = client.call("PING").then(() => {
      isAnswered = true;
    });
    // The system accepts its connections. A running server would answer immediately:
    const other = await startServer();
    for (let round = 0; round < 10; round++) await other.call("PING");
    assert.equal(isAnswered, false);
    server.resume();
    await answer;
    await Promise.all([server.kill(), other.kill()]);
  });

  it("has the given password and users", async () => {
    const server = await startServer({ password: "one", users: { reader: "on >two ~* +get" } });
    assert.match(await cli(server.port, "GET", "a"), /NOAUTH/);
    assert.equal(await cli(server.port, "-a", "one", "--no-auth-warning", "PING"), "PONG");
    const as = ["--user", "reader", "-a", "two", "--no-auth-warning"];
    assert.equal(await cli(server.port, ...as, "GET", "a"), "");
    assert.match(await cli(server.port, ...as, "SET", "a", "1"), /NOPERM/);
    assert.equal(await server.call("SET", "a", "1"), "OK");
    await server.kill();
  });

  it("serves over TLS with a certificate from its own authority", {
    skip: tlsMissing,
  }, async () => {
    const server = await startTlsServer();
    const tls = ["--tls", "--cacert", server.certificates.files.ca];
    assert.equal(await cli(server.port, ...tls, "PING"), "PONG");
    assert.equal(await server.call("PING"), "PONG");
    await assert.rejects(Client.connect({ port: server.port, tls: {} }), { code: /UNABLE|SELF_SIGNED/ });
    await assert.rejects(cli(server.port, "PING"));
    await server.kill();
  });

  it("ends with the process that started it, even when that is killed", async () => {
    const script = path.join(__dirname, "support/redis/orphan.js");
    const child = fork(script);
    const [pids] = await once(child, "message");
    assert.ok(pids.every(isRunning));
    child.kill("SIGKILL");
    await until(() => !pids.some(isRunning), "the servers end");
  });
});

describe("a test cluster", { skip: redisMissing }, () => {
  let cluster;
  after(() => cluster?.stop());

  it("has three primaries with a replica each", async () => {
    cluster = await startCluster();
    const { stdout } = await run("redis-cli", ["--cluster", "check", `127.0.0.1:${cluster.nodes[0].port}`]);
    assert.match(stdout, /All 16384 slots covered/);
    assert.equal(stdout.match(/M: \w{40} /g).length, 3);
    assert.equal(stdout.match(/S: \w{40} /g).length, 3);
  });

  it("moves a slot in steps, with ASK and MOVED", async () => {
    assert.equal(await cli(cluster.nodes[0].port, "-c", "SET", "key", "1"), "OK");
    assert.equal(await cli(cluster.nodes[2].port, "-c", "GET", "key"), "1");
    const slot = await cluster.slotOf("key");
    const from = await cluster.ownerOf(slot);
    const to = (from + 1) % 3;
    const move = await cluster.slotMove(slot, to);
    const ask = () => cluster.nodes[from].call("GET", "key");
    await move.begin();
    assert.equal(await ask(), "1");
    assert.equal(await move.moveKeys(), 1);
    await assert.rejects(ask(), { message: `ASK ${slot} 127.0.0.1:${cluster.nodes[to].port}` });
    await move.end();
    await assert.rejects(ask(), { message: `MOVED ${slot} 127.0.0.1:${cluster.nodes[to].port}` });
    assert.equal(await cluster.nodes[to].call("GET", "key"), "1");
  });

  it("continues without a killed primary", async () => {
    await cluster.nodes[0].kill();
    await cluster.untilPromoted(0);
    await until(
      async () => /cluster_state:ok/.test(await cli(cluster.nodes[3].port, "CLUSTER", "INFO")),
      "it serves again",
    );
  });
});

describe("test sentinels", { skip: redisMissing }, () => {
  it("agree on a new primary when the old one is killed", async () => {
    const all = await startSentinels();
    const old = await all.primary();
    const { switched } = await all.nextPrimary();
    await old.kill();
    const port = await switched;
    assert.notEqual(port, old.port);
    assert.ok(all.servers.some((server) => server.port === port));
    assert.match(await cli(port, "ROLE"), /^master/);
    await all.stop();
  });
});

describe("a test proxy", () => {
  /** Echoes each line. */
  async function startEcho() {
    const server = net.createServer((socket) => {
      socket.on("error", () => {});
      socket.pipe(socket);
    });
    server.listen(0, "127.0.0.1");
    server.unref();
    await once(server, "listening");
    const proxy = await startProxy(server.address());
    after(() => Promise.all([proxy.close(), server.close()]));
    return proxy;
  }

  async function connect(proxy) {
    const socket = net.connect(proxy.port, "127.0.0.1");
    socket.on("error", () => {});
    await once(socket, "connect");
    return socket.setEncoding("utf8");
  }

  // `once` would reject on a reset.
  const closeOf = (socket) => new Promise((resolve) => socket.on("close", resolve));

  /** Resolves to all data until the connection ends. */
  async function readAll(socket) {
    let text = "";
    socket.on("data", (some) => {
      text += some;
    });
    await closeOf(socket);
    return text;
  }

  it("forwards everything, until a delay is set", async () => {
    const proxy = await startEcho();
    const socket = await connect(proxy);
    socket.write("one");
    assert.deepEqual(await once(socket, "data"), ["one"]);
    proxy.delay(100);
    const began = performance.now();
    socket.write("two");
    assert.deepEqual(await once(socket, "data"), ["two"]);
    const took = performance.now() - began;
    assert.ok(took > 195, `${took} ms`);
    socket.destroy();
  });

  it("truncates a reply", async () => {
    const proxy = await startEcho();
    const socket = await connect(proxy);
    proxy.truncate(4);
    socket.write("truncated");
    assert.equal(await readAll(socket), "trun");
    const next = await connect(proxy);
    next.write("whole");
    assert.deepEqual(await once(next, "data"), ["whole"]);
    next.destroy();
  });

  it("drops connections, and refuses new ones on request", async () => {
    const proxy = await startEcho();
    const [one, other] = [await connect(proxy), await connect(proxy)];
    const closed = [one, other].map(closeOf);
    proxy.drop();
    await Promise.all(closed);
    (await connect(proxy)).destroy();
    await proxy.refuse();
    await assert.rejects(connect(proxy), { code: "ECONNREFUSED" });
    await proxy.heal();
    (await connect(proxy)).destroy();
  });

  it("accepts connections in blackhole mode, and forwards nothing", async () => {
    const proxy = await startEcho();
    proxy.goDark();
    const dark = await connect(proxy);
    dark.write("lost");
    dark.on("data", () => assert.fail("something has passed"));
    await until(() => proxy.accepted === 1, "it has taken the connection");
    await proxy.heal();
    const light = await connect(proxy);
    light.write("seen");
    assert.deepEqual(await once(light, "data"), ["seen"]);
    // The connection from blackhole mode was never closed.
    assert.equal(dark.readyState, "open");
    light.destroy();
    dark.destroy();
  });
});

if (redisMissing) {
  describe("without redis-server", () => {
    it("explains why tests are skipped", () => {
      assert.match(redisMissing, /redis/i);
      assert.notEqual(spawnSync("redis-server", ["--version"]).status, 0);
    });
  });
}
