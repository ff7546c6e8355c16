"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { rootCertificates } = require("node:tls");
const { describe, it } = require("node:test");
const { FileStore, MemoryStore, RedisStore, SessionStoreError } = require("..");
const { readServers } = require("../lib/redis-servers.js");
const { makePlace } = require("./support/file-places.js");

const { next: newFolder } = makePlace();

const refuses = (options, words, Store = MemoryStore) =>
  assert.throws(
    () => new Store(options),
    (error) => {
      assert.ok(error instanceof SessionStoreError, error?.stack);
      assert.equal(error.code, "ERR_INVALID_OPTION");
      assert.match(error.message, words);
      return true;
    },
  );

describe("options of MemoryStore", () => {
  it("are optional, and may be undefined", async () => {
    for (const options of [undefined, {}, { maxSessions: undefined, name: undefined }]) {
      await new MemoryStore(options).close();
    }
  });

  it("take the values that they document", async () => {
    const store = new MemoryStore({
      maxSessionBytes: 1,
      maxSessionsPerUser: Number.MAX_SAFE_INTEGER,
      whenUserIsFull: "end-oldest",
      maxSessions: 1,
      maxBytes: Number.MAX_SAFE_INTEGER,
      sweepInterval: 0,
      name: "é 😀",
    });
    assert.deepEqual(store.db, { type: "memory", name: "é 😀" });
    await store.close();
  });

  for (const limit of ["maxSessionBytes", "maxSessionsPerUser", "maxLifetime", "maxSessions", "maxBytes"]) {
    it(`refuse a ${limit} that is not a whole number from 1`, () => {
      for (const value of [0, -1, 1.5, NaN, Infinity, 2 ** 53]) {
        refuses(
          { [limit]: value },
          new RegExp(
            `^${limit} must be a whole number (of (bytes|milliseconds) )?from 1\\b.*; got ${value}$`,
          ),
        );
      }
      for (const value of ["10", null, 10n, true, {}, [10], () => 10]) {
        refuses({ [limit]: value }, new RegExp(`^${limit} must be a whole number`));
      }
    });
  }

  it("refuse a sweepInterval that is not a whole number from 0", () => {
    for (const value of [-1, 0.5, NaN, Infinity, "60000", null])
      refuses({ sweepInterval: value }, /^sweepInterval/);
  });

  it("refuse an unknown whenUserIsFull, and one without maxSessionsPerUser", () => {
    for (const [value, given] of [
      ["refuse", '"refuse": did you mean "reject"?'],
      ["REJECT", '"REJECT": did you mean "reject"?'],
      ["evict", '"evict": did you mean "end-oldest"?'],
      ["endOldest", '"endOldest": did you mean "end-oldest"?'],
      ["keep", '"keep"'],
      ["x".repeat(17), "a string"],
      [1, "1"],
      [null, "null"],
    ]) {
      assert.throws(() => new MemoryStore({ maxSessionsPerUser: 1, whenUserIsFull: value }), {
        code: "ERR_INVALID_OPTION",
        message: `whenUserIsFull must be "end-oldest" (the user's oldest session ends) or "reject" (the new one is refused); got ${given}`,
      });
    }
    const words =
      /^whenUserIsFull needs maxSessionsPerUser beside it: .* must be a whole number from 1; got undefined$/;
    for (const Store of [MemoryStore, FileStore, RedisStore]) {
      const place = { FileStore: { path: newFolder() }, RedisStore: { url: "redis://127.0.0.1:1" } }[
        Store.name
      ];
      refuses({ ...place, whenUserIsFull: "reject" }, words, Store);
    }
  });

  it("refuse a name that is not a string", () => {
    for (const value of ["", 1, null, {}, "\ud800"])
      refuses({ name: value }, /^name must be a non-empty string/);
  });

  it("name the likely spelling of an unknown option", () => {
    for (const [given, meant] of [
      ["maxSession", "maxSessions"],
      ["maxsessions", "maxSessions"],
      ["max_sessions", "maxSessions"],
      ["maxByte", "maxBytes"],
      ["maxSessionsPerUsers", "maxSessionsPerUser"],
      ["sweepIntervall", "sweepInterval"],
      ["nmae", "name"],
    ]) {
      refuses({ [given]: 1 }, new RegExp(`^MemoryStore has no option "${given}": did you mean ${meant}\\?$`));
    }
  });

  it("list the options if none is likely", () => {
    refuses({ colour: 1 }, /^MemoryStore has no option "colour": the options are name, maxSessions, /);
    refuses({ __proto__: null, constructor: 1 }, /^MemoryStore has no option "constructor"/);
  });

  it("refuse values that are not objects", () => {
    for (const options of [null, 1, "x", [], true, () => {}])
      refuses(options, /^options must be an object; got /);
  });
});

describe("options of FileStore", () => {
  const refusesFile = (options, words) => refuses({ path: newFolder(), ...options }, words, FileStore);

  it("are optional, except path", async () => {
    const folder = newFolder();
    const store = new FileStore({ path: folder, durability: undefined });
    assert.deepEqual(store.db, { type: "file", path: fs.realpathSync(folder) });
    await store.close();
  });

  it("take the values that they document", async () => {
    const store = new FileStore({
      path: newFolder(),
      durability: "commit",
      secret: ["é".repeat(8), Buffer.alloc(16), new Uint8Array(500)],
      maxBytes: 2 ** 20,
      maxSessionBytes: 1,
      maxSessionsPerUser: Number.MAX_SAFE_INTEGER,
      sweepInterval: 0,
    });
    await store.close();
    await new FileStore({ path: newFolder(), durability: "everysec" }).close();
  });

  it("refuse an invalid path", () => {
    refuses(undefined, /^path is required: the folder that holds the sessions, such as ".+"$/, FileStore);
    for (const value of ["", 1, null, {}, Buffer.from("x"), "a\0b", "\ud800", new URL("http://x")]) {
      refusesFile({ path: value }, /^path must be the path of a folder/);
    }
  });

  it("refuse the path of another kind of file, with the path in the message", () => {
    const file = newFolder();
    fs.writeFileSync(file, "");
    refusesFile(
      { path: file },
      new RegExp(`^path must be the path of a folder; got that of a file, ${file}$`),
    );
  });

  it("refuse values that are not booleans for boolean options", () => {
    for (const option of ["readOnly", "allowNetworkFileSystem"]) {
      for (const value of [null, 0, 1, "", "true", {}]) {
        refusesFile({ [option]: value }, new RegExp(`^${option} must be a boolean; got `));
      }
    }
  });

  it("refuse an unknown durability, and suggest one", () => {
    const expected =
      'durability must be "commit" (resolves once the write is on disk) or "everysec" (on disk about a second later)';
    for (const [durability, given] of [
      ["always", '"always": did you mean "commit"?'],
      ["fsync", '"fsync": did you mean "commit"?'],
      ["FULL", '"FULL": did you mean "commit"?'],
      ["Commit", '"Commit": did you mean "commit"?'],
      ["comit", '"comit": did you mean "commit"?'],
      [true, 'true: did you mean "commit"?'],
      ["everySec", '"everySec": did you mean "everysec"?'],
      ["every second", '"every second": did you mean "everysec"?'],
      ["evrysec", '"evrysec": did you mean "everysec"?'],
      ["none", '"none"'],
      ["no", '"no"'],
      ["", "an empty string"],
      ["a text that may be a secret", "a string"],
      [1, "1"],
      [false, "a boolean"],
      [null, "null"],
      [["commit"], "an array"],
    ]) {
      const isClear = ({ code, message }) => {
        assert.deepEqual(
          { code, message },
          { code: "ERR_INVALID_OPTION", message: `${expected}; got ${given}` },
        );
        return true;
      };
      assert.throws(() => new FileStore({ path: newFolder(), durability }), isClear);
    }
  });

  it("refuse an invalid secret without showing it", () => {
    const good = Buffer.alloc(32, 1);
    for (const [secret, words] of [
      [42, /^secret must be a string or a Buffer, or a list of these; got a number$/],
      [[good, null], /list of these; got null$/],
      [[[good]], /list of these; got an array$/],
      ["\ud800".repeat(20), /lone surrogate/],
      [[], /^secret must be .+; got an empty list$/],
      [
        "hunter2",
        /^secret must be at least 16 bytes long, such as the output of "openssl rand .+"; got 7 bytes$/,
      ],
      [[good, "hunter2"], /; got 7 bytes as secret 2$/],
      [
        [good, Buffer.alloc(32, 1)],
        /^secret must be 1 to 16 different secrets; got the same one as secret 1 and secret 2$/,
      ],
      [Array.from({ length: 17 }, (_, at) => Buffer.alloc(16, at)), /got 17 secrets$/],
    ]) {
      refusesFile({ secret }, words);
    }
  });

  it("refuse a maxBytes that leaves no room", () => {
    refusesFile(
      { maxBytes: 2 ** 20 - 1 },
      /^maxBytes must be a whole number of bytes from 1048576, .+; got 1048575$/,
    );
  });

  it("name the likely spelling of an unknown option", () => {
    refusesFile({ secrets: "x" }, /^FileStore has no option "secrets": did you mean secret\?$/);
    refusesFile({ dir: "x" }, /^FileStore has no option "dir": did you mean path\?$/);
  });

  it("leave nothing behind when they are refused", () => {
    const folder = newFolder();
    refusesFile({ path: folder, secret: "short" }, /secret/);
    assert.equal(fs.existsSync(folder), false);
  });

  it("must be equal for all openers of a path in one process, or omitted", async () => {
    const folder = newFolder();
    const secret = Buffer.alloc(32, 1);
    const store = new FileStore({ path: folder, secret, maxSessionsPerUser: 2 });
    await new FileStore({ path: path.join(folder, "..", path.basename(folder)), secret }).close();
    const open = { path: folder, secret };
    for (const [options, words] of [
      [
        { maxSessionsPerUser: 3 },
        /^maxSessionsPerUser must be 2, as the open store of this path has it; got 3$/,
      ],
      [
        { maxSessionsPerUser: 2, whenUserIsFull: "reject" },
        /^whenUserIsFull must be "end-oldest", as the open store of this path has it; got "reject"$/,
      ],
      [{ maxBytes: 2 ** 30 }, /^maxBytes must be left out, as the open store of this path has it/],
      [{ sweepInterval: 1 }, /^sweepInterval must be 60000/],
      [{ secret: Buffer.alloc(32, 2) }, /^secret must be the same .* got a different secret$/],
    ]) {
      refusesFile({ ...open, ...options }, words);
    }
    await store.close();
    await new FileStore({ ...open, maxSessionsPerUser: 3 }).close();
  });

  it("must have the same durability for all openers of a path in one process", async () => {
    for (const [first, other] of [
      ["commit", "everysec"],
      ["everysec", "commit"],
      [undefined, "everysec"],
    ]) {
      const folder = newFolder();
      const store = new FileStore({ path: folder, durability: first });
      for (const durability of [first, undefined]) await new FileStore({ path: folder, durability }).close();
      refusesFile(
        { path: folder, durability: other },
        new RegExp(
          `^durability must be "${first ?? "commit"}", as the open store of this path has it; got "${other}"$`,
        ),
      );
      await store.close();
      await new FileStore({ path: folder, durability: other }).close();
    }
  });
});

describe("named stores", () => {
  it("are one store", async () => {
    const [one, twin, other] = ["one", "one", "other"].map((name) => new MemoryStore({ name }));
    await one.create({ sessionId: "a", userId: "ann", expires: new Date(Date.now() + 1e6) });
    await one.close();
    assert.equal(await twin.size(), 1);
    assert.equal(await other.size(), 0);
    await Promise.all([twin.close(), other.close()]);
    const reopened = new MemoryStore({ name: "one" });
    assert.equal(await reopened.size(), 0);
    await reopened.close();
  });

  it("are opened with the same limits, or with none", async () => {
    const store = new MemoryStore({ name: "limits", maxSessions: 10 });
    for (const options of [{ name: "limits" }, { name: "limits", maxSessions: 10 }]) {
      await new MemoryStore(options).close();
    }
    refuses(
      { name: "limits", maxSessions: 11 },
      /^maxSessions must be 10, as the open store of this name has it; got 11$/,
    );
    refuses({ name: "limits", maxBytes: 11 }, /^maxBytes must be left out, as the open store/);
    refuses({ name: "limits", sweepInterval: 1 }, /^sweepInterval must be 60000/);
    await store.close();
  });
});

describe("limits of MemoryStore", () => {
  const session = (sessionId, userId) => ({ sessionId, userId, expires: Date.now() + 1e6 });
  const ids = async (store) => {
    const all = [];
    for await (const id of store.ids()) all.push(id);
    return all.sort();
  };

  it("end the least recently used session", async () => {
    const store = new MemoryStore({ maxSessions: 2 });
    for (const id of ["a", "b"]) await store.create(session(id, "ann"));
    await store.get("a");
    await store.create(session("c", "ben"));
    assert.deepEqual(await ids(store), ["a", "c"]);
    assert.equal((await store.stats()).evicted, 1);
  });

  it("never end a user's session for an anonymous one", async () => {
    const store = new MemoryStore({ maxSessions: 1 });
    await store.create(session("visitor", null));
    await store.create(session("a", "ann"));
    await assert.rejects(store.create(session("visitor", null)), { code: "ERR_STORE_FULL" });
    assert.deepEqual(await ids(store), ["a"]);
  });

  it("keep the bytes within maxBytes", async () => {
    const maxBytes = 200_000;
    const store = new MemoryStore({ maxBytes });
    for (let at = 0; at < 3000; at++) await store.create(session(`session ${at}`, "ann"));
    const { bytes, sessions } = await store.stats();
    assert.ok(bytes <= maxBytes && sessions > 300, `${sessions} sessions in ${bytes} bytes`);
    await assert.rejects(store.create({ ...session("large"), data: "x".repeat(maxBytes) }), {
      code: "ERR_STORE_FULL",
    });
    assert.equal((await store.stats()).sessions, sessions);
  });
});

describe("options of RedisStore", () => {
  const url = "redis://127.0.0.1:1";
  const sentinel = { urls: [url], master: "name" };
  const refusesRedis = (options, words) => refuses(options, words, RedisStore);

  it("name the servers in exactly one of three ways", async () => {
    for (const [options, mode] of [
      [{ url }, "single"],
      [{ url: "rediss://user:p%40ss@[::1]:6380/15", tls: { rejectUnauthorized: false } }, "single"],
      [{ url: "valkey://user:p%40ss@host:80/1" }, "single"],
      [{ url: "VALKEYS://host", tls: { rejectUnauthorized: false } }, "single"],
      [{ cluster: [url, "redis://localhost"] }, "cluster"],
      [{ cluster: [url, "valkey://localhost"] }, "cluster"],
      [{ sentinel }, "sentinel"],
      [{ sentinel: { ...sentinel, username: "u", password: "p", database: 3 } }, "sentinel"],
    ]) {
      const store = new RedisStore(options);
      assert.deepEqual(store.db, { type: "redis", mode, prefix: "fluid:" });
      await store.close();
    }
    for (const options of [undefined, {}, { url, cluster: [url] }, { url, sentinel }]) {
      refusesRedis(
        options,
        /^RedisStore needs one of url, cluster and sentinel, such as url: "redis:\/\/localhost:6379"(; got|$)/,
      );
    }
  });

  it("take the values that they document", async () => {
    const store = new RedisStore({
      url,
      prefix: "é 😀",
      clientName: "shop:web-1",
      secret: "a secret of some length",
      commandTimeout: 30_000,
      connectTimeout: 1,
      waitReplicas: 100,
      cache: { maxBytes: 2 ** 20, maxStaleness: 60_000 },
      maxSessionBytes: 1,
      maxSessionsPerUser: 1,
      sweepInterval: 0,
    });
    assert.deepEqual(store.db, { type: "redis", mode: "single", prefix: "é 😀" });
    await store.close();
  });

  it("accept the login outside of the URLs, each part once", () => {
    const node = "redis://host";
    const login = { username: "app", password: "p@ss" };
    for (const [options, expected] of [
      [{ url: node, ...login }, login],
      [
        { url: node, password: "p" },
        { username: undefined, password: "p" },
      ],
      [
        { url: "redis://app@host", password: "p" },
        { username: "app", password: "p" },
      ],
      [
        { url: "redis://:p@host", username: "app" },
        { username: "app", password: "p" },
      ],
      [{ cluster: [node, node], ...login }, login],
      [{ sentinel, ...login }, login],
      [
        { sentinel: { ...sentinel, username: "app" }, password: "p" },
        { username: "app", password: "p" },
      ],
    ]) {
      const { servers, masterLogin } = readServers(options);
      for (const { username, password } of masterLogin ? [masterLogin] : servers) {
        assert.deepEqual({ username, password }, expected, JSON.stringify(options));
      }
    }
    const credentials = () => ({ password: "p" });
    for (const [options, words] of [
      [{ url: node, username: "app" }, /^password is required where username is given$/],
      [{ url: "redis://:p@host", password: "q" }, /^password is given twice: as an option, and in url$/],
      [{ url: "redis://a:p@host", username: "a" }, /^username is given twice: as an option, and in url$/],
      [
        { cluster: ["redis://:p@host"], password: "q" },
        /^password is given twice: as an option, and in cluster\[0\]$/,
      ],
      [
        { sentinel: { ...sentinel, password: "p" }, password: "q" },
        /^password is given twice: as an option, and in sentinel$/,
      ],
      [
        { url: node, password: "p", credentials },
        /^password and credentials exclude each other: credentials gives the login$/,
      ],
      [
        { url: "redis://:p@host", credentials },
        /^credentials gives the login: remove the password from url$/,
      ],
      [
        { url: "redis://app@host", credentials },
        /^credentials gives the login: remove the username from url$/,
      ],
      [
        { sentinel: { ...sentinel, password: "p" }, credentials },
        /^credentials gives the login: remove the password from sentinel$/,
      ],
      [
        { url: node, credentials: {} },
        /^credentials must be a function that gives \{ username, password \}, or a promise/,
      ],
      [{ url: node, password: "" }, /^password must be a non-empty string; got an empty string$/],
      [{ url: node, username: 1 }, /^username must be a non-empty string; got 1$/],
    ]) {
      refusesRedis(options, words);
    }
  });

  it("refuse values that are not Redis URLs, without showing them", () => {
    for (const wrong of [
      "",
      "hunter2",
      "http://hunter2@host",
      "redis://",
      "redis://:hunter2@",
      "redis://:hunter2@host:99999",
      "redis://:hunter2@host/one",
      "redis://:hunter2@host/0/1",
      "redis://:hunter2@host/99999999999",
      "redis://:hunter2@host?db=1",
      "redis://:hunter2@host#1",
      "redis://:%E0%A4%A@host",
      "redis://hunter2@host",
      42,
      null,
    ]) {
      const isQuiet = (error) => {
        assert.match(error.message, /^url must be a URL such as /, String(wrong));
        assert.doesNotMatch(error.message, /hunter2/);
        return error.code === "ERR_INVALID_OPTION";
      };
      assert.throws(() => new RedisStore({ url: wrong }), isQuiet, String(wrong));
    }
    refusesRedis({ cluster: url }, /^cluster must be a list of URLs .+; got a string$/);
    refusesRedis({ cluster: [] }, /^cluster must be a list of URLs .+; got an empty list$/);
    refusesRedis({ cluster: [url, "x"] }, /^cluster\[1\] must be a URL such as .+, with no database; got /);
    refusesRedis(
      { cluster: [url, "valkeys://localhost"] },
      /^cluster must be URLs with the same login and protocol; got URLs that differ$/,
    );
    refusesRedis({ cluster: [`${url}/1`] }, /^cluster\[0\] must be .+; got a URL with a database$/);
    refusesRedis(
      { cluster: [url, "redis://:a@host"] },
      /^cluster must be URLs with the same login and protocol; got URLs that differ$/,
    );
    refusesRedis(
      { sentinel: { urls: [url] } },
      /^sentinel\.master is required: the name by which the sentinels know the primary$/,
    );
    refusesRedis({ sentinel: { ...sentinel, urls: url } }, /^sentinel\.urls must be a list/);
    refusesRedis(
      { sentinel: { ...sentinel, mastre: "" } },
      /^sentinel has no option "mastre": did you mean master\?$/,
    );
    refusesRedis({ sentinel: null }, /^sentinel must be an object; got null$/);
    refusesRedis({ sentinel: { ...sentinel, username: "u" } }, /^sentinel\.password is required where/);
  });

  it("explain a URL without a host, and a wrongly written Unix socket", () => {
    const noHost = /^url must be a URL such as .+; got a URL without a host$/;
    for (const wrong of [
      "redis://",
      "rediss://:6379",
      "valkey:///0",
      "redis://:hunter2@/1",
      "redis://?db=1",
    ]) {
      refusesRedis({ url: wrong }, noHost);
    }
    refusesRedis(
      { url: "redis:///tmp/x.sock" },
      /; got a URL without a host; a Unix socket is written as unix:/,
    );
    for (const wrong of [
      "unix:/tmp/x.sock",
      "unix://tmp/x.sock",
      "rediss+unix:///x",
      "redis-socket:///x",
      "/x",
    ]) {
      refusesRedis({ url: wrong }, /; got a Unix socket that is not written as unix:\/\/\/run\/redis\.sock$/);
      refusesRedis({ cluster: [wrong] }, /^cluster\[0\] must be .+; got a Unix socket that is not written/);
    }
    refusesRedis({ url: "redis://host/one" }, /; got a URL whose database is not a number$/);
    refusesRedis({ url: "redis://a@/b" }, /; got a URL without a host$/);
    refusesRedis({ url: "redis://host:0" }, /; got a URL with port 0$/);
    refusesRedis({ url: "redis://host%2fx" }, /; got a string that is not a URL$/);
    // biome-ignore lint/suspicious/noSparseArray: a gap is what the app may give.
    refusesRedis({ cluster: [, "redis://host"] }, /^cluster\[0\] must be .+; got undefined$/);
  });

  it("accept a Unix socket, only in url", { skip: process.platform === "win32" }, () => {
    for (const [given, host, database, username, password] of [
      ["unix:///tmp/x.sock", "/tmp/x.sock", 0],
      ["redis+unix:///x?db=3", "/x", 3],
      ["valkey+unix:///a%20b/%25?db=", "/a b/%", 0],
      ["UNIX://app:p%40ss@/run/x.sock?db=1", "/run/x.sock", 1, "app", "p@ss"],
      ["unix://:p@/x", "/x", 0, undefined, "p"],
    ]) {
      const { mode, servers } = readServers({ url: given });
      assert.deepEqual(mode, "single");
      assert.deepEqual(servers, [{ host, port: 0, tls: false, username, password, database }], given);
    }
    const { servers } = readServers({ url: "unix:///x", username: "app", password: "p" });
    assert.deepEqual([servers[0].username, servers[0].password], ["app", "p"]);
    for (const [wrong, given] of [
      ["unix:///", "a URL whose path is that of a folder"],
      ["unix:///run/", "a URL whose path is that of a folder"],
      ["unix:///x?db=one", "a URL whose database is not a number"],
      ["unix:///x?database=1", "a URL with more than a path and \\?db="],
      ["unix:///x#1", "a URL with more than a path and \\?db="],
      ["unix:///x?db=1&db=2", "a URL with more than a path and \\?db="],
      ["unix:///x%00", "a URL whose path is not percent-encoded"],
      ["unix:///x%", "a URL whose path is not percent-encoded"],
      ["unix://app@/x", "a URL with a user but no password"],
      [`unix:///${"x".repeat(107)}`, "a URL whose path is longer than 10[37] bytes"],
    ]) {
      refusesRedis({ url: wrong }, new RegExp(`^url must be a URL such as .+; got ${given}$`));
    }
    refusesRedis(
      { cluster: ["unix:///x"] },
      /^cluster\[0\] must be .+; got a Unix socket, which only url supports$/,
    );
    refusesRedis(
      { sentinel: { ...sentinel, urls: ["unix:///x"] } },
      /^sentinel\.urls\[0\] must be .+ only url supports$/,
    );
    refusesRedis({ url: "unix:///x", tls: {} }, /^tls needs URLs that begin with rediss:/);
  });

  it("keep the host and the port of a URL as written", () => {
    for (const [given, host, port] of [
      ["redis://redis.1", "redis.1", 6379],
      ["redis://10.1:7000", "10.1", 7000],
      ["redis://host:80/2", "host", 80],
      ["rediss://:secret@[::1]:080", "::1", 80],
      ["valkey://m\u00fcnchen", "xn--mnchen-3ya", 6379],
    ]) {
      const { mode, servers } = readServers({ url: given });
      const { tls } = servers[0];
      assert.deepEqual([mode, servers[0].host, servers[0].port], ["single", host, port], given);
      assert.equal(tls, given.startsWith("rediss"));
    }
    for (const wrong of ["redis://a b", "redis://a%20b", "redis://:1:2"]) {
      refusesRedis({ url: wrong }, /; got a string that is not a URL$/);
    }
  });

  it("refuse values that are out of range, and tls without TLS URLs", () => {
    for (const name of ["commandTimeout", "connectTimeout"]) {
      for (const value of [0, -1, 1.5, NaN, 2 ** 31, "2s", null]) {
        refusesRedis(
          { url, [name]: value },
          new RegExp(`^${name} must be a whole number of milliseconds from 1 `),
        );
      }
    }
    refusesRedis({ url, commandTimeout: 30_001 }, /^commandTimeout must be .+ from 1 to 30000; got 30001$/);
    for (const value of [-1, 101, 0.5, "1"])
      refusesRedis({ url, waitReplicas: value }, /^waitReplicas must be /);
    for (const [cache, words] of [
      [true, /^cache must be an object; got a boolean$/],
      [null, /^cache must be an object; got null$/],
      [{ maxBytes: 1 }, /^cache\.maxBytes must be a whole number of bytes from 1048576, .+; got 1$/],
      [{ maxBytes: "64mb" }, /^cache\.maxBytes must be .+; got a string$/],
      [{ maxStaleness: 0 }, /^cache\.maxStaleness must be .+ milliseconds from 1 to 60000; got 0$/],
      [{ maxStaleness: 60_001 }, /^cache\.maxStaleness must be .+; got 60001$/],
      [{ maxStalenes: 1 }, /^cache has no option "maxStalenes": did you mean maxStaleness\?$/],
    ]) {
      refusesRedis({ url, cache }, words);
    }
    for (const value of ["", "x".repeat(257), 1, "\ud800"])
      refusesRedis({ url, prefix: value }, /^prefix must be /);
    refusesRedis(
      { url, commandTimeuot: 1 },
      /^RedisStore has no option "commandTimeuot": did you mean commandTimeout\?$/,
    );
    for (const clientName of ["", "a b", "é", "a\n", "x".repeat(65), 1]) {
      refusesRedis(
        { url, clientName },
        /^clientName must be 1 to 64 printable ASCII characters without a space; got /,
      );
    }
    refusesRedis(
      { url, maxSessions: 1 },
      /^RedisStore has no option "maxSessions": it is an option of MemoryStore/,
    );
    refusesRedis({ url, secret: "short" }, /^secret must be /);
    refusesRedis({ url, tls: {} }, /^tls needs URLs that begin with rediss:/);
    const secure = "rediss://127.0.0.1:1";
    refusesRedis(
      { url: secure, tls: { ca: "no PEM" } },
      /^tls\.ca must be one or more certificates as PEM text; got something else$/,
    );
    for (const ca of [1, "", [], [""], [1], Buffer.alloc(0)]) {
      refusesRedis(
        { url: secure, tls: { ca } },
        /^tls\.ca must be PEM text, a Buffer of it, or a list of those; got /,
      );
    }
    const certificate = rootCertificates[0];
    refusesRedis(
      { url: secure, tls: { ca: [certificate, Buffer.from("no PEM")] } },
      /^tls\.ca must be one or more /,
    );
    refusesRedis(
      { url: secure, tls: { cert: [certificate] } },
      /^tls\.cert must be PEM text, or a Buffer of it; got an array$/,
    );
    for (const servername of ["", 1]) {
      refusesRedis({ url: secure, tls: { servername } }, /^tls\.servername must be a non-empty string; got /);
    }
    refusesRedis(
      { url: secure, tls: { servername: "no name" } },
      /^tls\.servername must be a host name or an IP address, as certificates have it; got a string that is neither$/,
    );
    refusesRedis(
      { url: secure, tls: { cert: "x" } },
      /^tls\.key must be given with tls\.cert; got undefined$/,
    );
    refusesRedis(
      { url: secure, tls: { rejectUnauthorized: 0 } },
      /^tls\.rejectUnauthorized must be a boolean/,
    );
    refusesRedis({ url: secure, tls: { Ca: "x" } }, /^tls has no option "Ca": did you mean ca\?$/);
  });
});
