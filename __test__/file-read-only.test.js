"use strict";

// Stores that are opened with readOnly, also where nothing can be written.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { describe, it } = require("node:test");
const { FileStore, SessionStoreError } = require("..");
const { makePlace, skip } = require("./support/file-places.js");
const { ROOT, execute, findPrefix, run, start } = require("./support/file-scripts.js");
const { session } = require("./support/file-session.js");
const { hashOf, withStore } = require("./support/file-store.js");

const place = makePlace();

/** A closed store with these sessions. */
async function makeStore(ids, options) {
  const dir = place.next();
  await withStore({ path: dir, sweepInterval: 0, ...options }, async (store) => {
    for (const id of ids) await store.create(session(id));
  });
  return dir;
}

async function idsOf(store) {
  const ids = [];
  for await (const id of store.ids()) ids.push(id);
  return ids.sort();
}

const isRefused = (error) => {
  assert.ok(error instanceof SessionStoreError);
  assert.equal(error.code, "ERR_STORE_IO", error.message);
  assert.match(error.message, /was opened with readOnly: true, and takes no writes$/);
  return true;
};

describe("a read-only store", { skip }, () => {
  it("answers reads, refuses writes and changes nothing", async () => {
    const path = await makeStore(["a", "b"]);
    await withStore({ path }, (store) => store.create(session("due", { expires: new Date(1) })));
    const hash = hashOf(path);
    await withStore({ path, readOnly: true, sweepInterval: 1 }, async (store) => {
      const given = await store.get("a");
      assert.equal(given.userId, "ann");
      assert.deepEqual(await idsOf(store), ["a", "b"]);
      assert.equal((await store.getByUser("ann")).length, 2);
      assert.equal((await store.stats()).sessions, 3);
      assert.deepEqual((await store.verify()).problems, []);
      for (const write of [
        () => store.create(session("c")),
        () => store.update("a", given),
        () => store.touch("a", Date.now() + 1e6),
        () => store.delete("a"),
        () => store.deleteByUser("ann"),
        () => store.clear(),
        () => store.clean(),
      ]) {
        await assert.rejects(write, isRefused);
      }
      // These need no write.
      await store.delete("none");
      await Promise.all(
        Array.from({ length: 300 }, (_, at) => assert.rejects(store.create(session(`${at}`)), isRefused)),
      );
      const copy = place.next();
      await store.backup(copy);
      await withStore({ path: copy }, async (other) => assert.notEqual(await other.get("b"), null));
    });
    assert.equal(hashOf(path), hash);
  });

  it("must exist", () => {
    const path = place.next();
    assert.throws(() => new FileStore({ path, readOnly: true }), { code: "ERR_STORE_IO" });
    assert.equal(fs.existsSync(path), false);
    fs.mkdirSync(path);
    const refused = { code: "ERR_STORE_IO", message: /^no store at .*, and readOnly creates none$/ };
    assert.throws(() => new FileStore({ path, readOnly: true }), refused);
    assert.deepEqual(fs.readdirSync(path), []);
    fs.writeFileSync(`${path}/data.mdb`, "");
    assert.throws(() => new FileStore({ path, readOnly: true }), refused);
    assert.deepEqual(fs.readdirSync(path), ["data.mdb"]);
  });

  it("must be read-only for all openers in a process, or for none", async () => {
    const path = await makeStore(["a"]);
    for (const readOnly of [true, false]) {
      await withStore({ path, readOnly }, async () => {
        assert.throws(() => new FileStore({ path, readOnly: !readOnly }), {
          code: "ERR_INVALID_OPTION",
          message: `readOnly must be ${readOnly}, as of the open store of this path; got ${!readOnly}`,
        });
        await withStore({ path, readOnly }, async (store) => assert.notEqual(await store.get("a"), null));
      });
    }
    for (const readOnly of [null, 1, "true"]) {
      assert.throws(() => new FileStore({ path, readOnly }), {
        code: "ERR_INVALID_OPTION",
        message: /^readOnly must be a boolean; got /,
      });
    }
  });

  it("keeps its wrapped keys unchanged", async () => {
    const [one, two] = ["the first secret of some length", "the second secret of some length"];
    const path = await makeStore(["a"], { secret: one });
    const hash = hashOf(path);
    await withStore({ path, readOnly: true, secret: [two, one] }, async (store) => {
      assert.equal((await store.get("a")).userId, "ann");
      await assert.rejects(store.touch("a", Date.now() + 1e6), isRefused);
    });
    assert.equal(hashOf(path), hash);
    await withStore({ path, secret: one }, async (store) => assert.notEqual(await store.get("a"), null));
  });

  it("sees concurrent writes of another process", async () => {
    const path = await makeStore(["a"]);
    const writer = start(
      `const store = new FileStore({ path: process.argv[1] });
       let at = 0;
       process.stdin.on("data", async () => { await store.create(session("w" + at++)); say("done"); });
       process.stdin.on("end", () => process.exit());
       say("open");`,
      { args: [path] },
    );
    assert.equal(await writer.hear(), "open");
    await withStore({ path, readOnly: true }, async (store) => {
      for (let at = 0; at < 10; at++) {
        writer.child.stdin.write("go");
        assert.equal(await writer.hear(), "done");
        assert.notEqual(await store.get(`w${at}`), null);
      }
    });
    await writer.end();
  });
});

const CLI = path.join(ROOT, "bin/native-store.js");

/** Returns the output of each read-only command on a store. */
const COMMANDS = `
  const { spawnSync } = require("node:child_process");
  const [path, out] = process.argv.slice(1);
  for (const command of [["list"], ["stats"], ["verify"], ["export"], ["backup", out + "/copy"]]) {
    const { status, stderr } = spawnSync(process.execPath, [
      ${JSON.stringify(CLI)}, ...command, "--path", path, "--quiet",
    ]);
    say(command[0] + " " + status + stderr);
  }`;

const ALL_DONE = ["list 0", "stats 0", "verify 0", "export 0", "backup 0"].join("\n");

// A mount that is visible only to this process and its children.
const inside = skip ? undefined : findPrefix(["unshare", "-m"], ["unshare", "-r", "-m"]);
const mounted = (dir) => [
  ...inside,
  ...["sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"', dir],
];
const canMount = inside !== undefined && findPrefix(mounted(place.root)) !== undefined;

describe("a store on a read-only file system", {
  skip: skip || (!canMount && "mount is refused here"),
}, () => {
  it("can be read if no process has it open, as a store or a backup", async () => {
    const dir = await makeStore(["a", "b"]);
    const backup = place.next();
    await withStore({ path: dir }, (store) => store.backup(backup));
    for (const each of [dir, backup]) {
      const before = fs.readdirSync(each);
      const out = place.next();
      fs.mkdirSync(out);
      assert.equal(await run(COMMANDS, { prefix: mounted(each), args: [each, out] }), ALL_DONE);
      assert.deepEqual(fs.readdirSync(each), before);
      await withStore({ path: `${out}/copy` }, async (store) => assert.equal(await store.size(), 2));
    }
  });

  it("is refused for writing, with the reason", async () => {
    const dir = await makeStore(["a"]);
    await assert.rejects(
      execute([...mounted(dir), process.execPath, CLI, "revoke", "--id", "a", "--path", dir]),
      ({ code, stderr }) => {
        assert.equal(code, 3);
        assert.match(stderr, /Read-only file system.*\(ERR_STORE_IO\)$/m);
        return true;
      },
    );
  });

  it("is refused while a writing process has it open, also if that came later", async () => {
    const dir = await makeStore(["a"]);
    const reader = () =>
      start(
        `let store;
         process.stdin.on("data", async () => {
           try {
             store ??= new FileStore({ path: process.argv[1], readOnly: true });
             say((await store.get("a")).sessionId);
           } catch ({ code, message }) {
             say(code + " " + message);
           }
         });
         process.stdin.on("end", () => process.exit());
         say("ready");`,
        { prefix: mounted(dir), args: [dir] },
      );
    const asked = async (one) => {
      one.child.stdin.write("go");
      return one.hear();
    };
    const early = reader();
    assert.equal(await early.hear(), "ready");
    assert.equal(await asked(early), "a");
    const store = new FileStore({ path: dir });
    const isLocked =
      /^ERR_STORE_LOCKED .* is open in another process, and this one may not write to its lock files/;
    assert.match(await asked(early), isLocked);
    const late = reader();
    assert.equal(await late.hear(), "ready");
    assert.match(await asked(late), isLocked);
    await store.close();
    assert.equal(await asked(early), "a");
    assert.equal(await asked(late), "a");
    await Promise.all([early.end(), late.end()]);
  });
});

// Root may do anything, so use another user.
const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
const isRoot = process.getuid?.() === 0;
const canBeNobody =
  !skip && isRoot && findPrefix([...nobody, process.execPath, "-e", "", "--"]) !== undefined;
const skipOthers = skip || (isRoot && !canBeNobody && "setpriv cannot run Node as somebody else here");

describe("a store whose files its reader may not write", { skip: skipOthers }, () => {
  const prefix = canBeNobody ? nobody : [];

  async function protect(dir) {
    fs.chmodSync(place.root, 0o711);
    for (const name of fs.readdirSync(dir)) fs.chmodSync(path.join(dir, name), 0o444);
    fs.chmodSync(dir, 0o555);
  }

  it("can be read if no process has it open", async () => {
    const dir = await makeStore(["a"]);
    const out = place.next();
    fs.mkdirSync(out);
    fs.chmodSync(out, 0o777);
    await protect(dir);
    assert.equal(await run(COMMANDS, { prefix, args: [dir, out] }), ALL_DONE);
    fs.chmodSync(dir, 0o755);
  });

  it("is refused while another user has it open", { skip: !isRoot && "asks for root" }, async () => {
    const dir = await makeStore(["a"]);
    await withStore({ path: dir }, async () => {
      await protect(dir);
      await assert.rejects(
        execute([...prefix, process.execPath, CLI, "list", "--path", dir]),
        ({ stderr }) => {
          assert.match(stderr, /is open in another process.*\(ERR_STORE_LOCKED\)$/m);
          return true;
        },
      );
    });
    fs.chmodSync(dir, 0o755);
  });
});
