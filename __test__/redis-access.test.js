"use strict";

// Access to a server: passwords, users, databases, TLS.

const assert = require("node:assert/strict");
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { after, before, describe, it } = require("node:test");
const { RedisStore, SessionStoreError } = require("..");
const {
  makeCertificates,
  newDirectory,
  redisMissing,
  startProxy,
  startServer,
  startTlsServer,
  tlsMissing,
  until,
} = require("./support/redis-servers.js");
const { session } = require("./conformance.js");

// The deadline of calls that must fail by it. The server's answer must arrive within it, too.
const DEADLINE = 1500;
// Even on a busy machine no call is this late.
const LATEST = 10_000;
const LONGEST = 30_000;
// The server words it differently in a script.
const FORBIDDEN = /NOPERM|permission|can't run this command/i;
const PASSWORD = "s3cret/with:odd@signs%";

const open = (options) => new RedisStore({ commandTimeout: LONGEST, sweepInterval: 0, ...options });
const at = ({ port }, { login = "", database = "", scheme = "redis" } = {}) =>
  `${scheme}://${login}127.0.0.1:${port}${database}`;
const as = (user, password) => `${user}:${encodeURIComponent(password)}@`;

/** Makes a call that must fail in time, and whose error must not contain secrets. */
async function fails(call, words) {
  const began = performance.now();
  const error = await call.then(
    () => assert.fail("it did not fail"),
    (thrown) => thrown,
  );
  const took = performance.now() - began;
  assert.ok(error instanceof SessionStoreError, error.stack);
  assert.equal(error.code, "ERR_STORE_UNAVAILABLE", error.message);
  assert.match(error.message, words);
  assert.equal(error.outcome, undefined, "it says that it may have been carried out");
  assert.ok(took < LATEST, `it took ${took} ms`);
  for (const text of [error.message, String(error.cause ?? ""), JSON.stringify(error)]) {
    assert.ok(!text.includes("s3cret") && !text.includes("wr0ng"), text);
  }
}

const allFail = (calls, words) => Promise.all(calls.map((call) => fails(call, words)));

async function works(store) {
  const one = session();
  await store.create(one);
  assert.deepEqual(await store.get(one.sessionId), one);
  assert.equal(await store.touch(one.sessionId, Date.now() + 5_000_000), true);
  await store.delete(one.sessionId);
  assert.equal(await store.get(one.sessionId), null);
}

/** Runs `use` with a store, and closes that. */
async function withStore(options, use) {
  const store = open(options);
  try {
    await use(store);
  } finally {
    await store.close();
  }
}

/** The same with a store whose calls fail by the deadline. */
const withBriefStore = (options, use) => withStore({ commandTimeout: DEADLINE, ...options }, use);

const untilLetIn = (store) =>
  until(
    () =>
      store.get("a").then(
        () => true,
        () => false,
      ),
    "it is let in",
  );

describe("a RedisStore and a server with a password", { skip: redisMissing }, () => {
  let server;
  before(async () => {
    server = await startServer({ password: PASSWORD });
  });
  after(() => server?.kill());

  it("work together if it is given", async () => {
    await withStore({ url: at(server, { login: as("", PASSWORD) }) }, works);
    await withStore({ url: at(server, { login: as("default", PASSWORD) }) }, works);
  });

  it("do not if it is missing or wrong, and the error does not show it", async () => {
    await withBriefStore({ url: at(server) }, (store) =>
      allFail([store.get("a"), store.create(session()), store.size()], /NOAUTH|authenticat|password/i),
    );
    await withBriefStore({ url: at(server, { login: as("", "wr0ng") }) }, (store) =>
      allFail([store.get("a"), store.create(session())], /WRONGPASS|authenticat|password/i),
    );
  });

  it("work together without a restart once it is corrected", async () => {
    const url = at(server, { login: as("late", "s3cret") });
    await withBriefStore({ url }, async (store) => {
      await fails(store.get("a"), /WRONGPASS|authenticat|password/i);
      await server.call("ACL", "SETUSER", "late", "on", ">s3cret", "~*", "&*", "+@all");
      await untilLetIn(store);
      await works(store);
    });
  });

  it("continue when the password changes while a connection is open", async () => {
    await server.call("ACL", "SETUSER", "moved", "on", ">s3cret", "~*", "&*", "+@all");
    await withBriefStore({ url: at(server, { login: as("moved", "s3cret") }) }, async (store) => {
      await works(store);
      await server.call("ACL", "SETUSER", "moved", "resetpass", ">an0ther");
      await server.call("CLIENT", "KILL", "USER", "moved");
      await until(
        () =>
          store.get("a").then(
            () => false,
            (error) => error.code === "ERR_STORE_UNAVAILABLE",
          ),
        "it is shut out",
      );
      await server.call("ACL", "SETUSER", "moved", ">s3cret");
      await untilLetIn(store);
      await works(store);
    });
  });
});

describe("a RedisStore and a user of its own", { skip: redisMissing }, () => {
  let server;
  before(async () => {
    server = await startServer({
      users: {
        app: "on >s3cret ~fluid:* resetchannels +@all -@dangerous",
        reader: "on >s3cret ~fluid:* +@all -@write",
        other: "on >s3cret ~other:* +@all",
        "no-scan": "on >s3cret ~fluid:* +@all -scan",
      },
    });
  });
  after(() => server?.kill());

  it("need only the keys of the prefix, and no dangerous command", async () => {
    await withStore(
      { url: at(server, { login: as("app", "s3cret") }), maxSessionsPerUser: 2 },
      async (store) => {
        await works(store);
        for (let count = 0; count < 3; count++) await store.create(session());
        assert.equal((await store.getByUser("ann")).length, 2);
        assert.equal(await store.size(), 2);
        await store.clean();
        await store.stats();
        assert.equal(await store.deleteByUser("ann"), 2);
        await store.clear();
      },
    );
  });

  it("create sessions that have expired, without transactions", async () => {
    await server.call("ACL", "SETUSER", "scripts", "reset", "on", ">s3cret", "~*", "&*", "+@all", "-multi");
    const url = at(server, { login: as("scripts", "s3cret") });
    await withStore({ url, maxSessionsPerUser: 5 }, async (store) => {
      // Each on the path that the store takes before and after it knows that it may use no transaction.
      for (let count = 0; count < 3; count++) {
        const past = session({ expires: new Date(0) });
        await store.create(past);
        assert.equal(await store.get(past.sessionId), null);
      }
      await works(store);
    });
  });

  it("report in stats that the background sweep fails", async () => {
    const login = as("no-scan", "s3cret");
    await withStore({ url: at(server, { login }), sweepInterval: 20 }, async (store) => {
      assert.equal((await store.stats()).sweepError, null);
      await until(async () => FORBIDDEN.test((await store.stats()).sweepError), "a sweep has failed");
      assert.equal((await store.stats()).lastSweep, null);
    });
  });

  it("fail only at commands that the user may not run", async () => {
    await withStore({ url: at(server, { login: as("reader", "s3cret") }) }, async (store) => {
      assert.equal(await store.get("a"), null);
      await fails(store.create(session()), FORBIDDEN);
      const one = session();
      await withStore({ url: at(server) }, (owner) => owner.create(one));
      await fails(store.update(one.sessionId, one), FORBIDDEN);
      await fails(store.touch(one.sessionId, one.expires), FORBIDDEN);
      await fails(store.delete(one.sessionId), FORBIDDEN);
      assert.deepEqual(await store.get(one.sessionId), one);
    });
    await withStore({ url: at(server, { login: as("other", "s3cret") }) }, async (store) => {
      await fails(store.get("a"), FORBIDDEN);
    });
    await withStore({ url: at(server, { login: as("other", "s3cret") }), prefix: "other:" }, works);
  });

  it("report an unknown outcome if a later step of a call is refused", async () => {
    const sessions = Array.from({ length: 3000 }, () => session());
    const proxy = await startProxy(server);
    const size = () => server.call("DBSIZE");
    for (const [rule, begin] of [
      ["-scan", (store) => store.clear()],
      ["-@scripting", (store) => store.deleteByUser("ann")],
    ]) {
      await server.call("FLUSHALL");
      await server.call("ACL", "SETUSER", "busy", "reset", "on", ">s3cret", "~*", "+@all");
      await withStore({ url: at(server) }, (owner) => Promise.all(sessions.map((one) => owner.create(one))));
      const full = await size();
      const login = { login: as("busy", "s3cret") };
      await withStore({ url: at(proxy, login) }, async (store) => {
        assert.notEqual(await store.get(sessions[0].sessionId), null);
        // So that it is refused before it runs.
        proxy.delay(100);
        const call = begin(store);
        const outcome = call.catch((error) => error);
        await until(async () => (await size()) < full, "the first steps are done");
        await server.call("ACL", "SETUSER", "busy", rule);
        const error = await outcome;
        assert.equal(error.code, "ERR_STORE_UNAVAILABLE", String(error));
        assert.match(error.message, FORBIDDEN);
        assert.equal(error.outcome, "unknown", error.message);
        assert.ok((await size()) > 0, "nothing was left to do");
        // Now its first step is refused.
        await fails(begin(store), FORBIDDEN);
      });
      await proxy.heal();
    }
    await proxy.close();
  });
});

describe("a RedisStore and databases", { skip: redisMissing }, () => {
  it("use the one of the URL", async () => {
    const server = await startServer();
    const one = session();
    await withStore({ url: at(server, { database: "/3" }) }, (store) => store.create(one));
    await withStore({ url: at(server) }, async (store) => assert.equal(await store.get(one.sessionId), null));
    await withStore({ url: at(server, { database: "/3" }) }, async (store) => {
      assert.deepEqual(await store.get(one.sessionId), one);
      // A new connection has to select it again.
      await server.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
      await until(() => store.get(one.sessionId).then(Boolean, () => false), "it is back");
    });
    assert.match((await server.info("keyspace")).db3, /^keys=[12],/);
    assert.equal((await server.info("keyspace")).db0, undefined);
    await server.kill();
  });

  it("report a database that does not exist", async () => {
    const server = await startServer();
    await withBriefStore({ url: at(server, { database: "/99" }) }, (store) => fails(store.get("a"), /./));
    await server.kill();
  });
});

describe("the connections of a RedisStore", { skip: redisMissing }, () => {
  const named = async (server) => {
    const list = await server.call("CLIENT", "LIST");
    return list.split("\n").map((line) => / name=(\S+) /.exec(line)?.[1]);
  };

  it("have a name, and the library name if the server supports it", async () => {
    const server = await startServer();
    const knowsLibraries = !(await server.call("CLIENT", "SETINFO", "LIB-VER", "1").catch((error) => error))
      .message;
    for (const [options, name] of [
      [{}, "native-store"],
      [{ clientName: "shop:web-1" }, "shop:web-1"],
    ]) {
      await withStore({ url: at(server), ...options }, async (store) => {
        await works(store);
        const count = async () => (await named(server)).filter((each) => each === name).length;
        await until(async () => (await count()) === 2, "both have it");
        if (knowsLibraries) {
          const list = await server.call("CLIENT", "LIST", "TYPE", "normal");
          assert.match(list, /lib-name=@fluidauth\/native-store lib-ver=\d/);
        }
      });
    }
    await server.kill();
  });

  it("work without it if the user may not set it, or the server does not support it", async () => {
    const forbidding = await startServer({ users: { app: "on >s3cret ~fluid:* +@all -client" } });
    await withStore({ url: at(forbidding, { login: as("app", "s3cret") }) }, works);
    await forbidding.kill();
    const ignorant = await startServer({ settings: { "rename-command": 'CLIENT ""' } });
    await withStore({ url: at(ignorant) }, works);
    await ignorant.kill();
  });

  it("report that a server has too many, with a login or without", async () => {
    const server = await startServer({ password: PASSWORD, settings: { maxclients: 1 } });
    const client = await server.connect();
    for (const login of [as("", PASSWORD), ""]) {
      await withBriefStore({ url: at(server, { login }) }, (store) =>
        // If the store writes after the server has closed, a reset may discard the reply.
        until(
          () => store.get("a").catch(({ message }) => /max number of clients reached/.test(message)),
          "it says so",
        ),
      );
    }
    client.close();
    await withStore({ url: at(server, { login: as("", PASSWORD) }) }, untilLetIn);
    await server.kill();
  });
});

describe("a RedisStore and a Unix socket", { skip: redisMissing }, () => {
  const startAt = (file) => startServer({ password: PASSWORD, settings: { unixsocket: `"${file}"` } });
  const clients = async (server, file) => {
    const list = await server.call("CLIENT", "LIST");
    return list.split("\n").filter((line) => line.includes(` addr=${file}:0 `)).length;
  };

  it("work together, with a password and a database, also on the event loop", async () => {
    const file = path.join(newDirectory(), "a b.sock");
    const server = await startAt(file);
    const one = session();
    const url = `unix://${as("", PASSWORD)}${file.replace(" ", "%20")}?db=3`;
    await withStore({ url }, async (store) => {
      await works(store);
      await until(async () => (await clients(server, file)) === 2, "it has both connections");
      const many = Array.from({ length: 500 }, () => session({ data: "x".repeat(10_000) }));
      await Promise.all(many.map((each) => store.create(each)));
      const found = await Promise.all(many.map((each) => store.get(each.sessionId)));
      assert.deepEqual(found, many);
      await store.create(one);
    });
    assert.match((await server.info("keyspace")).db3, /^keys=/);
    await withStore({ url: `unix://${file}?db=3`, password: PASSWORD }, async (store) => {
      assert.deepEqual(await store.get(one.sessionId), one);
    });
    await server.kill();
  });

  it("work together again once the server is back", async () => {
    const file = path.join(newDirectory(), "redis.sock");
    const server = await startAt(file);
    await withBriefStore({ url: `redis+unix://${file}`, password: PASSWORD }, async (store) => {
      await works(store);
      await until(async () => (await clients(server, file)) === 2, "it has both connections");
      await server.kill();
      await fails(store.get("a"), /redis\.sock: connection refused$/);
      await server.start();
      await untilLetIn(store);
      await works(store);
      await until(async () => (await clients(server, file)) === 2, "it has both connections again");
    });
    await server.kill();
  });

  it("report a missing socket", async () => {
    const file = path.join(newDirectory(), "none.sock");
    await withBriefStore({ url: `unix://${file}` }, (store) =>
      fails(store.get("a"), /no connection to \/.+none\.sock: No such file/),
    );
  });
});

describe("a RedisStore and TLS", { skip: tlsMissing }, () => {
  const rediss = (server) => at(server, { scheme: "rediss" });
  let server;
  before(async () => {
    server = await startTlsServer();
  });
  after(() => server?.kill());

  it("work together if the authority is trusted, also on the event loop", async () => {
    const clients = async () => (await server.call("CLIENT", "LIST")).match(/ name=native-store /g)?.length;
    await withStore({ url: rediss(server), tls: { ca: server.certificates.ca } }, async (store) => {
      await works(store);
      await until(async () => (await clients()) === 2, "it has both connections");
      await works(store);
    });
  });

  it("do not with another authority, without one, or with another name", async () => {
    const stranger = makeCertificates(newDirectory());
    const check = (tls) =>
      withBriefStore({ url: rediss(server), tls }, (store) =>
        allFail([store.get("a"), store.create(session())], /certificate|TLS|issuer/i),
      );
    await Promise.all([undefined, {}, { ca: stranger.ca }].map(check));
  });

  it("work together with any certificate if rejectUnauthorized is false", async () => {
    await withStore({ url: rediss(server), tls: { rejectUnauthorized: false } }, works);
  });

  it("present a client certificate if the server requests one", async () => {
    const strict = await startTlsServer({ needsClientCertificate: true });
    const { ca, cert, key } = strict.certificates;
    await withStore({ url: rediss(strict), tls: { ca, cert, key } }, works);
    await withBriefStore({ url: rediss(strict), tls: { ca } }, (store) => fails(store.get("a"), /./));
    await strict.kill();
  });

  it("accept authorities as a Buffer, and as a list", async () => {
    const { ca, cert, key } = server.certificates;
    const stranger = makeCertificates(newDirectory());
    for (const given of [Buffer.from(ca), [ca], [stranger.ca, Buffer.from(ca)], `${stranger.ca}\n${ca}`]) {
      await withStore({ url: rediss(server), tls: { ca: given } }, works);
    }
    await withStore(
      { url: rediss(server), tls: { ca, cert: Buffer.from(cert), key: Buffer.from(key) } },
      works,
    );
  });

  it("trust the authorities that Node trusts", async () => {
    const file = path.join(newDirectory(), "extra.pem");
    fs.writeFileSync(file, server.certificates.ca);
    const script = `const { RedisStore } = require(${JSON.stringify(path.join(__dirname, ".."))});
      const [url, commandTimeout] = [${JSON.stringify(rediss(server))}, Number(process.argv[1])];
      const store = new RedisStore({ url, commandTimeout, sweepInterval: 0 });
      store.get("a").then((found) => console.log(found), (error) => console.log(error.message));`;
    const run = (NODE_EXTRA_CA_CERTS, commandTimeout) =>
      execFileSync(process.execPath, ["-e", script, "--", commandTimeout], {
        env: { ...process.env, NODE_EXTRA_CA_CERTS },
        encoding: "utf8",
      });
    assert.equal(run(file, LONGEST), "null\n");
    assert.match(run("", DEADLINE), /certificate/);
  });

  it("check the certificate for the given servername", async () => {
    const named = await startTlsServer({ names: "DNS:redis.test" });
    const { ca } = named.certificates;
    await withBriefStore({ url: rediss(named), tls: { ca } }, (store) =>
      fails(store.get("a"), /certificate not valid for name "127\.0\.0\.1"/),
    );
    await withStore({ url: rediss(named), tls: { ca, servername: "redis.test" } }, works);
    await withBriefStore({ url: rediss(named), tls: { ca, servername: "other.test" } }, (store) =>
      fails(store.get("a"), /certificate not valid for name "other\.test"/),
    );
    await named.kill();
  });

  it("check the certificates of a cluster for the names that its nodes announce", async () => {
    const node = await startTlsServer({
      names: "DNS:localhost",
      settings: {
        "cluster-enabled": "yes",
        "tls-cluster": "yes",
        "cluster-announce-ip": "127.0.0.1",
        "cluster-announce-hostname": "localhost",
      },
    });
    await node.call("CLUSTER", "ADDSLOTSRANGE", 0, 16_383);
    await until(async () => /cluster_state:ok/.test(await node.call("CLUSTER", "INFO")), "the cluster is up");
    const cluster = [`rediss://localhost:${node.port}`];
    await withStore({ cluster, tls: { ca: node.certificates.ca } }, works);
    await node.kill();
  });

  it("fail without TLS on a TLS server, and with TLS on a server without it", async () => {
    await withBriefStore({ url: at(server) }, (store) => fails(store.get("a"), /rediss:\/\//));
    const plain = await startServer();
    const tls = { ca: server.certificates.ca };
    await withBriefStore({ url: rediss(plain), tls, connectTimeout: DEADLINE / 3 }, (store) =>
      fails(store.get("a"), /no TLS handshake \(redis:\/\/ is for servers without TLS\) within 500 ms/),
    );
    await plain.kill();
  });
});
