"use strict";

// Who may read a store: its path and permissions, and its secrets.

const assert = require("node:assert/strict");
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { describe, it } = require("node:test");
const { FileStore, SessionStoreError } = require("..");
const { makePlace, skip } = require("./support/file-places.js");
const { findPrefix, run } = require("./support/file-scripts.js");
const { session } = require("./support/file-session.js");
const { hashOf, withStore } = require("./support/file-store.js");

const place = makePlace();
const FILES = ["data.mdb", "lock.mdb", "owners.lock", "redo.log"];
const modeOf = (file) => (fs.statSync(file).mode & 0o7777).toString(8);

const refuses = (options, code, words) =>
  assert.throws(
    () => new FileStore(options),
    (error) => {
      assert.ok(error instanceof SessionStoreError);
      assert.equal(error.code, code, error.message);
      if (words) assert.match(error.message, words);
      return true;
    },
  );

describe("path", { skip }, () => {
  it("must be a string that may name a folder", () => {
    for (const path of [
      undefined,
      null,
      "",
      7,
      true,
      {},
      [],
      Buffer.from("/tmp/a"),
      "/tmp/a\0b",
      "/tmp/\ud800",
    ]) {
      refuses({ path }, "ERR_INVALID_OPTION", /path/);
    }
    refuses({}, "ERR_INVALID_OPTION", /path/);
    assert.throws(() => new FileStore(), { code: "ERR_INVALID_OPTION", message: /path/ });
    assert.throws(() => new FileStore(place.next()), { code: "ERR_INVALID_OPTION" });
  });

  it("is refused with the reason", () => {
    for (const [path, words] of [
      ["/tmp/a\0b", /got a string with a NUL character$/],
      ["/tmp/\ud800", /got a string with a lone surrogate$/],
      [Buffer.from("/tmp/a"), /got a Buffer: use buffer\.toString\(\)$/],
      [new URL("https://host/a"), /got a URL with another scheme than file:$/],
      [new URL("file:///tmp/a%2Fb"), /got a file: URL that names no path of this system$/],
      [new URL("file:///tmp/a%00b"), /got a string with a NUL character$/],
      ["file:///tmp/a", /got the string of a file: URL: use new URL\(path\)$/],
      ["~/sessions", /got a path that begins with ~, which only shells know: use os\.homedir\(\)$/],
      ["~", /got a path that begins with ~/],
      ["", /got an empty string$/],
      [7, /got a number$/],
    ]) {
      refuses({ path }, "ERR_INVALID_OPTION", words);
    }
    assert.equal(fs.existsSync("file:"), false);
  });

  it("must not be a file, or below one, and the message shows it", () => {
    const file = place.next();
    fs.writeFileSync(file, "notes");
    refuses({ path: file }, "ERR_INVALID_OPTION", new RegExp(file));
    refuses({ path: path.join(file, "below") }, "ERR_STORE_IO", new RegExp(file));
    assert.equal(fs.readFileSync(file, "utf8"), "notes");
  });

  it("must be a path that the system can create", () => {
    const [loop, lost] = [place.next(), place.next()];
    fs.symlinkSync(loop, loop);
    fs.symlinkSync(path.join(place.root, "nowhere"), lost);
    for (const path of [loop, lost, `${place.next()}/${"x".repeat(300)}`, "/proc/none/of/these"]) {
      refuses({ path }, "ERR_STORE_IO", /failed/);
    }
  });

  it("may have any other characters, and missing parents", async () => {
    for (const name of ["a b", "ä/é/日本", '\'; rm -rf "$HOME"', "%2e%2e", "-rf", "line\nend", "😀", "..."]) {
      const options = { path: path.join(place.next(), name) };
      await withStore(options, (store) => store.create(session("a")));
      assert.ok(fs.existsSync(path.join(options.path, "data.mdb")));
      await withStore(options, async (store) => assert.notEqual(await store.get("a"), null));
    }
  });
});

/** For `findPrefix`, which adds an argument. */
const runNode = [process.execPath, "-e", "", "--"];

// Root may do anything, so use another user, or the current one.
const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
const isRoot = process.getuid?.() === 0;
const canBeNobody = !skip && isRoot && findPrefix([...nobody, ...runNode]) !== undefined;
const prefix = canBeNobody ? nobody : [];
const skipOthers = skip || (isRoot && !canBeNobody && "setpriv cannot run Node as somebody else here");

/** A folder of the user's own. */
function makeHome() {
  const home = place.next();
  fs.mkdirSync(home);
  fs.chmodSync(place.root, 0o711);
  if (canBeNobody) fs.chownSync(home, 65534, 65534);
  return home;
}

describe("a store's folder and files", { skip }, () => {
  for (const umask of [0, 0o022, 0o077, 0o777]) {
    const title = `are their owner's alone under umask ${umask.toString(8).padStart(3, "0")}`;
    it(title, async () => {
      const home = makeHome();
      const parents = [path.join(home, "a"), path.join(home, "a/b")];
      const dir = path.join(home, "a/b/sessions");
      try {
        await run(
          `process.umask(${umask});
           const store = new FileStore({ path: process.argv[1] });
           store.create(session("a")).then(() => store.close());`,
          { prefix, args: [dir] },
        );
        assert.deepEqual(fs.readdirSync(dir).sort(), FILES);
        assert.equal(modeOf(dir), "700");
        for (const name of FILES) assert.equal(modeOf(path.join(dir, name)), "600", name);
        // Parents have the user's default permissions, but the owner always has access.
        const forOthers = (0o077 & ~umask).toString(8).padStart(2, "0");
        for (const parent of parents) assert.match(modeOf(parent), new RegExp(`^7${forOthers}$`));
      } finally {
        for (const parent of parents) if (fs.existsSync(parent)) fs.chmodSync(parent, 0o700);
      }
    });
  }
});

describe("the files of a store", { skip }, () => {
  const strace = skip
    ? undefined
    : findPrefix(["strace", "-f", "-qq", "-e", "trace=%file", "-o", "/dev/null"]);

  it("are private from their creation on", {
    skip: strace === undefined && "strace is not here",
  }, async () => {
    const [dir, log] = [place.next(), place.next()];
    await run(
      `process.umask(0);
         const store = new FileStore({ path: process.argv[1] });
         store.create(session("a")).then(() => store.backup(process.argv[1] + "-copy")).then(() => store.close());`,
      { prefix: [...strace.slice(0, -1), log], args: [dir] },
    );
    const calls = fs
      .readFileSync(log, "utf8")
      .split("\n")
      .filter((line) => line.includes(`"${dir}`));
    const created = calls.filter((line) => /O_CREAT|mkdir/.test(line));
    assert.ok(created.length >= 6, calls.join("\n"));
    // strace writes "<unfinished ...>" where another thread's call comes in between.
    for (const line of created) assert.match(line, /, 0[67]00(?:\) +=| <unfinished)/);
    assert.deepEqual(
      calls.filter((line) => /ch(mod|own)/.test(line)),
      [],
    );
  });

  it("are not inherited by programs that the app starts", async () => {
    const dir = place.next();
    await withStore({ path: dir }, async (store) => {
      await store.create(session("a"));
      const list =
        'for (const fd of fs.readdirSync("/proc/self/fd")) try { console.log(fs.readlinkSync("/proc/self/fd/" + fd)) } catch {}';
      const open = execFileSync(process.execPath, ["-e", list], { encoding: "utf8" });
      assert.match(open, /pipe/);
      assert.doesNotMatch(open, /mdb|owners/);
    });
  });

  it("must be regular files with one name, in a folder that may be a link", async () => {
    const dir = place.next();
    await withStore({ path: dir }, (store) => store.create(session("a")));
    const link = place.next();
    fs.symlinkSync(dir, link);
    await withStore({ path: link }, async (store) => assert.notEqual(await store.get("a"), null));

    const changes = [
      [/is a symbolic link/, (file) => fs.symlinkSync(`${file}-kept`, file)],
      [/is a symbolic link/, (file) => fs.symlinkSync(`${dir}/victim`, file)],
      [/is not a regular file/, (file) => fs.mkdirSync(file)],
      [/has more than one hard link/, (file) => fs.linkSync(`${file}-kept`, file)],
    ];
    for (const name of FILES) {
      const file = path.join(dir, name);
      for (const [words, change] of changes) {
        fs.renameSync(file, `${file}-kept`);
        change(file);
        for (const readOnly of [false, true]) {
          refuses({ path: dir, readOnly }, "ERR_STORE_IO", words);
          refuses({ path: dir, readOnly }, "ERR_STORE_IO", new RegExp(`^${file} `));
        }
        fs.rmSync(file, { recursive: true });
        fs.renameSync(`${file}-kept`, file);
        assert.deepEqual(fs.readdirSync(dir).sort(), FILES);
      }
    }
    await withStore({ path: dir }, async (store) => assert.notEqual(await store.get("a"), null));
  });

  it("must not be a FIFO, and opening one does not block", async () => {
    for (const name of FILES) {
      const dir = place.next();
      fs.mkdirSync(dir);
      execFileSync("mkfifo", [path.join(dir, name)]);
      // In a process that can be killed.
      const answer = await run(
        "try { new FileStore({ path: process.argv[1] }); } catch ({ code, message }) { say(code + message); }",
        { args: [dir] },
      );
      assert.match(answer, /^ERR_STORE_IO.*is not a regular file/);
    }
  });
});

describe("a folder that its user may not use", { skip: skipOthers }, () => {
  const open = (dir) =>
    run(
      `(async () => {
         try {
           const store = new FileStore({ path: process.argv[1] });
           await store.create(session("s" + Date.now()));
           say("size " + (await store.size()));
         } catch ({ code, message }) {
           say(code + " " + message);
         }
       })();`,
      { prefix, args: [dir] },
    );

  async function isRefused(dir) {
    const answer = await open(dir);
    assert.ok(answer.startsWith("ERR_STORE_IO "), answer);
    assert.ok(answer.includes(dir), answer);
    assert.match(answer, /denied/);
  }

  it("is refused, with its path and the system's reason", async () => {
    const home = makeHome();
    const dir = path.join(home, "sessions");
    fs.chmodSync(home, 0o500);
    await isRefused(dir);
    fs.chmodSync(home, 0o700);
    assert.equal(await open(dir), "size 1");

    const hash = hashOf(dir);
    fs.chmodSync(dir, 0);
    await isRefused(dir);
    fs.chmodSync(dir, 0o700);
    for (const name of FILES) {
      const file = path.join(dir, name);
      for (const mode of [0, 0o400]) {
        fs.chmodSync(file, mode);
        await isRefused(dir);
        assert.equal(modeOf(file), mode.toString(8));
      }
      fs.chmodSync(file, 0o600);
    }
    assert.equal(hashOf(dir), hash);
    assert.equal(await open(dir), "size 2");
  });

  it("is refused if no file can be created in it, and may otherwise be read-only", async () => {
    const dir = path.join(makeHome(), "sessions");
    fs.mkdirSync(dir);
    if (isRoot) fs.chownSync(dir, 65534, 65534);
    fs.chmodSync(dir, 0o500);
    await isRefused(dir);
    fs.chmodSync(dir, 0o700);
    assert.equal(await open(dir), "size 1");
    fs.chmodSync(dir, 0o500);
    assert.equal(await open(dir), "size 2");
    fs.chmodSync(dir, 0o700);
  });

  it("still belongs to its owner after root has opened it", {
    skip: !isRoot && "asks for root",
  }, async () => {
    const dir = path.join(makeHome(), "sessions");
    assert.equal(await open(dir), "size 1");
    for (const name of ["lock.mdb", "owners.lock"]) fs.rmSync(path.join(dir, name));
    await withStore({ path: dir }, (store) => store.create(session("root's")));
    assert.equal(await open(dir), "size 3");
  });
});

describe("a secret", { skip }, () => {
  const ONE = "the first secret of some length";
  const TWO = Buffer.from("the second secret, which is a buffer");

  it("must belong to the store, and nothing is changed otherwise", async () => {
    const sealed = { path: place.next(), secret: ONE };
    const open = { path: place.next() };
    await withStore(sealed, (store) => store.create(session("a")));
    await withStore(open, (store) => store.create(session("a")));
    for (const [options, expected] of [
      [{ ...sealed, secret: TWO }, /encrypted with/],
      [{ ...sealed, secret: [TWO, "another secret of some length"] }, /encrypted with/],
      [{ ...sealed, secret: ONE.toUpperCase() }, /encrypted with/],
      [{ path: sealed.path }, /is encrypted/],
      [{ ...open, secret: ONE }, /is not encrypted/],
    ]) {
      const hash = hashOf(options.path);
      refuses(options, "ERR_INVALID_OPTION", expected);
      refuses(options, "ERR_INVALID_OPTION", new RegExp(`^secret .*${options.path}`));
      assert.throws(
        () => new FileStore(options),
        ({ message, stack }) => !/secret of some|buffer/i.test(message + stack.split("\n")[0]),
      );
      assert.equal(hashOf(options.path), hash);
    }
    for (const options of [sealed, open]) {
      await withStore(options, async (store) => assert.notEqual(await store.get("a"), null));
    }
  });

  it("must be long enough, of the right type, and in a list that is not too long", () => {
    const path = place.next();
    for (const secret of [
      ...["", "fifteen bytes..", Buffer.alloc(15), null, 7, true, {}, Symbol("s"), new Uint16Array(16)],
      ...["\ud800".repeat(16), [], [ONE, ""], [ONE, null], [[ONE]], [ONE, ONE], [ONE, Buffer.from(ONE)]],
      Array.from({ length: 17 }, (_, at) => `secret of some length ${at}`),
    ]) {
      refuses({ path, secret }, "ERR_INVALID_OPTION", /^secret must be /);
    }
    assert.equal(fs.existsSync(path), false);
  });

  it("may be a string or bytes, which are equivalent", async () => {
    const options = { path: place.next(), secret: "sixteen bytes it" };
    await withStore(options, (store) => store.create(session("a")));
    for (const secret of [
      Buffer.from(options.secret),
      new Uint8Array(Buffer.from(options.secret)),
      [options.secret],
      Buffer.from(`__${options.secret}__`).subarray(2, 18),
    ]) {
      await withStore({ ...options, secret }, async (store) => assert.notEqual(await store.get("a"), null));
    }
  });

  it("must be the same for all openers in a process", async () => {
    const options = { path: place.next(), secret: [ONE, TWO] };
    await withStore(options, async () => {
      for (const secret of [undefined, ONE, TWO, [TWO, ONE]]) {
        refuses({ ...options, secret }, "ERR_INVALID_OPTION", /^secret /);
      }
      await withStore({ ...options }, (store) => store.create(session("a")));
    });
  });

  it("can be rotated: sessions are live while their secret is in the list, and absent afterwards", async () => {
    const path = place.next();
    const all = async (store) => {
      const ids = [];
      for await (const id of store.ids()) ids.push(id);
      return ids.sort();
    };
    await withStore({ path, secret: ONE }, async (store) => {
      for (const id of ["old", "touched", "updated"]) await store.create(session(id));
    });
    await withStore({ path, secret: [TWO, ONE] }, async (store) => {
      assert.deepEqual(await all(store), ["old", "touched", "updated"]);
      await store.create(session("new"));
      await store.touch("touched", Date.now() + 1e6);
      await store.update("updated", session("updated", { cart: [] }));
      await assert.rejects(store.create(session("old")), { code: "ERR_SESSION_EXISTS" });
      assert.equal((await store.getByUser("ann")).length, 4);
    });
    const later = ["new", "touched", "updated"];
    await withStore({ path, secret: TWO }, async (store) => {
      assert.deepEqual(await all(store), later);
      assert.equal(await store.get("old"), null);
      assert.equal(await store.touch("old", Date.now() + 1e6), false);
      await store.update("old", session("old"));
      assert.equal(await store.get("old"), null);
      const found = await store.getByUser("ann");
      assert.deepEqual(found.map((one) => one.sessionId).sort(), later);
      assert.deepEqual((await store.get("updated")).cart, []);
      assert.deepEqual([await store.size(), (await store.stats()).sessions], [3, 3]);
      await store.create(session("last", { userId: "ben" }));
      assert.deepEqual((await store.verify()).problems, []);
      await store.clean();
    });
    // A session needs the old secret.
    await withStore({ path, secret: ONE }, async (store) => assert.deepEqual(await all(store), ["old"]));
    await withStore({ path, secret: TWO }, async (store) => {
      await store.create(session("old", { userId: "ben" }));
      assert.equal((await store.get("old")).userId, "ben");
      assert.equal(await store.deleteByUser("ann"), 3);
      assert.deepEqual(await all(store), ["last", "old"]);
      await store.clean();
    });
    refuses({ path, secret: ONE }, "ERR_INVALID_OPTION", /encrypted with/);
  });

  it("ends the sessions of a user that it cannot read", async () => {
    const path = place.next();
    await withStore({ path, secret: ONE }, (store) => store.create(session("stolen")));
    await withStore({ path, secret: [TWO, ONE] }, (store) => store.create(session("x", { userId: "ben" })));
    await withStore({ path, secret: TWO }, async (store) => assert.equal(await store.deleteByUser("ann"), 0));
    await withStore({ path, secret: [TWO, ONE] }, async (store) => {
      assert.equal(await store.get("stolen"), null);
      assert.equal(await store.size(), 1);
    });
  });

  it("is not locked out by a late process with an old list", async () => {
    const path = place.next();
    for (const [at, secret] of [ONE, [ONE, TWO], [TWO, ONE], ONE].entries()) {
      await withStore({ path, secret }, async (store) => {
        await store.create(session(`${at}`));
        await store.clean();
      });
    }
    await withStore({ path, secret: TWO }, async (store) => assert.notEqual(await store.get("2"), null));
  });

  it("hides ids, users and contents in the files, and itself", async () => {
    const hexId = "0123456789abcdef0123456789abcdef0123";
    const secrets = {
      id: "an-id-of-this-test",
      user: "a-user-of-this-test",
      content: "a-content-of-this-test",
    };
    const write = async (store) => {
      for (let at = 0; at < 50; at++) {
        await store.create(session(`${secrets.id}-${at}`, { userId: secrets.user, text: secrets.content }));
      }
      await store.create(session(hexId, { userId: secrets.user }));
      await store.touch(hexId, Date.now() + 1e6);
      await store.update(hexId, session(hexId, { userId: secrets.user, text: secrets.content }));
      await store.delete(`${secrets.id}-7`);
    };
    const traces = [...Object.values(secrets), hexId, Buffer.from(hexId, "hex"), ONE, TWO];
    const foundIn = (dir) => {
      const all = Buffer.concat(fs.readdirSync(dir).map((name) => fs.readFileSync(path.join(dir, name))));
      return traces.filter((trace) => all.includes(trace));
    };
    const [sealed, open] = [place.next(), place.next()];
    await withStore({ path: sealed, secret: [ONE, TWO] }, write);
    assert.deepEqual(foundIn(sealed), []);
    // They would be found in a plain store.
    await withStore({ path: open }, write);
    assert.ok(foundIn(open).length >= 3);
  });
});

/** In KiB. Node itself reserves much, depending on its version. */
const limitedTo = (kilobytes) => ["bash", "-c", 'ulimit -v "$0" && exec "$@"', `${kilobytes}`];
const limits = skip
  ? []
  : [1_500_000, 2_000_000, 3_000_000, 4_000_000, 8_000_000, 32_000_000, 48_000_000].filter((limit) =>
      findPrefix([...limitedTo(limit), ...runNode]),
    );
const skipLimits = skip || (limits.length === 0 && "Node does not run with less address space here");

describe("little address space", { skip: skipLimits }, () => {
  it("leaves enough for the process to work, or the store is refused", async (t) => {
    const answers = [];
    for (const limit of limits) {
      const printed = await run(
        `const text = "x".repeat(2000);
         (async () => {
           try {
             const store = new FileStore({ path: process.argv[1] });
             for (let at = 0; at < 2000; at++) store.create(session("s" + at, { text }));
             await store.create(session("last"));
             const kept = Array.from({ length: 20 }, () => Buffer.alloc(1 << 20, 1));
             await Promise.all([store.size(), store.size(), store.stats()]);
             say("size " + (await store.size()) + " " + kept.length);
           } catch ({ code, message }) {
             say(code + " " + message);
           }
         })();`,
        { prefix: limitedTo(limit), args: [place.next()] },
      );
      assert.match(printed, /^(size 2001 20|ERR_STORE_IO too little address space: .*ulimit -v.*MiB)$/);
      answers.push(printed);
      t.diagnostic(`${limit} KiB: ${printed}`);
    }
    assert.match(answers.at(-1), /^size/);
  });
});
