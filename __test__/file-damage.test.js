"use strict";

// Files that are not stores, and damaged stores: they are refused, or their damage is reported, and they are not
// changed.

const assert = require("node:assert/strict");
const { createHash, randomFillSync } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { after, before, describe, it } = require("node:test");
const { FileStore } = require("..");
const { makePlace, skip } = require("./support/file-places.js");
const { run } = require("./support/file-scripts.js");
const { session } = require("./support/file-session.js");

const PAGE = 4096;
const SECRET = "a secret of some length";
const place = makePlace();
const dataOf = (dir) => path.join(dir, "data.mdb");
const hashOf = (file) => createHash("sha256").update(fs.readFileSync(file)).digest("hex");

/** A directory whose data file has these bytes. */
function plant(bytes) {
  const dir = place.next();
  fs.mkdirSync(dir);
  fs.writeFileSync(dataOf(dir), bytes);
  return dir;
}

/** Returns all positions of some bytes, or of a text with one byte per character. */
function* placesOf(bytes, found) {
  if (typeof found === "string") return yield* placesOf(bytes, Buffer.from(found, "latin1"));
  for (let at = bytes.indexOf(found); at >= 0; at = bytes.indexOf(found, at + 1)) yield at;
}

function replaced(bytes, from, to) {
  assert.equal(from.length, to.length);
  const changed = Buffer.from(bytes);
  const places = [...placesOf(bytes, from)];
  assert.notEqual(places.length, 0);
  for (const at of places) changed.write(to, at, "latin1");
  return changed;
}

const ids = Array.from({ length: 600 }, (_, at) => `session-${at}`);

/** Returns the bytes of a closed store with sessions of several sizes, some deleted. */
async function makeStore(options) {
  const dir = place.next();
  const store = new FileStore({ path: dir, ...options });
  const blob = (at) => "x".repeat(at % 5 ? 100 : 6000);
  for (let from = 0; from < ids.length; from += 200) {
    const some = ids.slice(from, from + 200);
    await Promise.all(some.map((id, at) => store.create(session(id, { userId: at % 7, blob: blob(at) }))));
  }
  for (let at = 0; at < ids.length; at += 3) await store.delete(ids[at]);
  await store.close();
  return fs.readFileSync(dataOf(dir));
}

/** Opens each of these in one process, which must survive. Returns the error of each, or `null`. */
async function openAll(dirs) {
  const printed = await run(
    `(async () => {
       for (const path of JSON.parse(process.argv[1])) {
         let fault = null;
         try {
           const store = new FileStore({ path });
           const { problems } = await store.verify();
           const missing = [];
           for (let at = 0; at < ${ids.length}; at++) {
             if (((await store.get("session-" + at)) === null) !== (at % 3 === 0)) missing.push(at);
           }
           await store.close();
           if (problems.length + missing.length > 0) fault = { message: JSON.stringify({ problems, missing }) };
         } catch ({ name, code, message }) {
           fault = { name, code, message };
         }
         say(JSON.stringify(fault));
       }
     })();`,
    { args: [JSON.stringify(dirs)] },
  );
  return printed.split("\n").map((line) => JSON.parse(line));
}

/** Asserts that all of these are refused with their path in the message, and unchanged. */
async function areRefused(files, words) {
  const dirs = files.map(plant);
  const hashes = dirs.map((dir) => hashOf(dataOf(dir)));
  for (const [at, fault] of (await openAll(dirs)).entries()) {
    const { name, code, message } = fault ?? {};
    assert.deepEqual(
      { name, code },
      { name: "SessionStoreError", code: "ERR_STORE_CORRUPT" },
      `${at}: ${message}`,
    );
    assert.ok(message.startsWith(dataOf(dirs[at])), message);
    if (words) assert.match(message, words);
    assert.equal(hashOf(dataOf(dirs[at])), hashes[at]);
  }
}

describe("a file that is not a store", { skip }, () => {
  let good;
  before(async () => {
    good = await makeStore();
  });

  it("is refused and unchanged", async () => {
    const noise = randomFillSync(Buffer.alloc(10 * PAGE), 0);
    await areRefused([
      "No store, but some notes.\n".repeat(1000),
      Buffer.alloc(1),
      Buffer.alloc(16 * PAGE),
      noise,
      Buffer.concat([Buffer.from("SQLite format 3\0"), noise]),
      Buffer.concat([good.subarray(0, PAGE), noise]),
      Buffer.concat([noise.subarray(0, PAGE), good.subarray(PAGE)]),
      // With another data version of LMDB, and with other page numbers.
      replaced(good, "\xde\xc0\xef\xbe\x01\0\0\0", "\xde\xc0\xef\xbe\x02\0\0\0"),
    ]);
  });

  it("of LMDB is refused if it has other tables", async () => {
    await areRefused([replaced(good, "format\x03\0\0\0", "fosmat\x03\0\0\0")], /not a session store/);
    await areRefused([replaced(good, "format\x03\0\0\0", "format\0\0\0\0")], /not a session store/);
    await areRefused([replaced(good, "expiries", "expirier")], /lost a table/);
  });

  it("of a newer version is refused with that reason and unchanged", async () => {
    await areRefused(
      [replaced(good, "format\x03\0\0\0", "format\x05\0\0\0")],
      /format 5, of a newer version/,
    );
    await areRefused([replaced(good, "format\x03\0\0\0", "format\xff\xff\xff\x7f")], /newer version/);
  });

  it("that was cut anywhere is refused, unless only unused pages are missing", async () => {
    const pages = good.length / PAGE;
    const lengths = new Set([1, 15, 16, 151, 152, PAGE - 1, good.length - 1]);
    for (let page = 1; page < pages; page += page < 6 || page > pages - 6 ? 1 : 30) {
      for (const length of [-1, 0, 2048]) lengths.add(page * PAGE + length);
    }
    const dirs = [...lengths].map((length) => plant(good.subarray(0, length)));
    const hashes = dirs.map((dir) => hashOf(dataOf(dir)));
    const faults = await openAll(dirs);
    for (const [at, fault] of faults.entries()) {
      if (fault === null) continue;
      assert.equal(fault.code, "ERR_STORE_CORRUPT", fault.message);
      assert.ok(fault.message.startsWith(dataOf(dirs[at])), fault.message);
      assert.equal(hashOf(dataOf(dirs[at])), hashes[at]);
    }
    assert.ok(faults.filter((fault) => fault === null).length < 20);
  });

  it("that is empty, or has damaged neighbours, becomes or stays a store", async () => {
    const empty = plant("");
    const store = new FileStore({ path: empty });
    await store.create(session("a"));
    await store.close();

    const dirs = Array.from({ length: 4 }, () => plant(good));
    const noise = randomFillSync(Buffer.alloc(2 * PAGE));
    // These two files matter only while processes have the store open.
    fs.writeFileSync(path.join(dirs[0], "lock.mdb"), noise);
    fs.writeFileSync(path.join(dirs[1], "lock.mdb"), "");
    fs.writeFileSync(path.join(dirs[2], "owners.lock"), noise);
    assert.deepEqual(await openAll(dirs), [null, null, null, null]);
  });

  for (const name of ["data.mdb", "lock.mdb", "owners.lock"]) {
    it(`is refused if it is a folder: ${name}`, () => {
      const dir = place.next();
      fs.mkdirSync(path.join(dir, name), { recursive: true });
      assert.throws(() => new FileStore({ path: dir }), {
        code: /ERR_STORE_(IO|CORRUPT)/,
        message: new RegExp(dir),
      });
    });
  }
});

describe("an encrypted record", { skip }, () => {
  /** The offsets of `indexed_expiry` and `created` in a record, and of the encrypted part. */
  const markOf = (expires, created) => {
    const mark = Buffer.alloc(16);
    mark.writeBigInt64LE(BigInt(expires), 0);
    mark.writeBigInt64LE(BigInt(created), 8);
    return mark;
  };
  const TAG = 16;
  const KEY_ID = 4;
  const CONTENT = { userId: "ann", blob: "y".repeat(200) };
  const expires = Date.now() + 10_000_000;
  const marks = [0, 1, 2].map((at) => markOf(expires + at, at));
  let bytes;

  before(async () => {
    const dir = place.next();
    const store = new FileStore({ path: dir, secret: SECRET });
    for (let at = 0; at < 3; at++) {
      await store.create({ sessionId: `id-${at}`, ...CONTENT, expires: expires + at });
    }
    await store.close();
    bytes = fs.readFileSync(dataOf(dir));
  });

  const opened = [];
  after(() => Promise.all(opened.map((store) => store.close())));

  function open(changed) {
    const store = new FileStore({ path: plant(changed), secret: SECRET });
    opened.push(store);
    return store;
  }

  /** The first two sessions are damaged, the third is not. */
  async function isNoticed(store, damaged) {
    for (const id of damaged) await assert.rejects(store.get(id), { code: "ERR_STORE_CORRUPT" });
    assert.equal((await store.get("id-2")).userId, "ann");
    const found = [];
    for await (const id of store.ids()) found.push(id);
    assert.deepEqual(
      found.sort(),
      ["id-0", "id-1", "id-2"].filter((id) => !damaged.includes(id)),
    );
    // It can be deleted.
    for (const id of damaged) {
      await store.delete(id);
      assert.equal(await store.get(id), null);
    }
    assert.deepEqual(
      (await store.getByUser("ann")).map((one) => one.sessionId),
      found,
    );
  }

  it("that was changed in any part is refused, and does not affect others", async () => {
    for (const offset of [
      16 + TAG + KEY_ID,
      16 + TAG + KEY_ID + 24,
      16 + TAG + KEY_ID + 100,
      16,
      16 + TAG - 1,
    ]) {
      const changed = Buffer.from(bytes);
      for (const at of placesOf(bytes, marks[0])) changed[at + offset] ^= 1;
      await isNoticed(open(changed), ["id-0"]);
    }
  });

  it("whose expiry was moved is refused", async () => {
    const changed = Buffer.from(bytes);
    // It stands before the mark.
    for (const at of placesOf(bytes, marks[0])) changed[at - 4] ^= 1;
    await isNoticed(open(changed), ["id-0"]);
  });

  it("in the place of another is refused", async () => {
    const length = 16 + TAG + KEY_ID + 24 + 16 + 200;
    for (const from of [-8, 16, 16 + TAG]) {
      const changed = Buffer.from(bytes);
      const [[one], [other]] = [0, 1].map((at) => [...placesOf(bytes, marks[at])]);
      for (const [to, at] of [0, 1].flatMap((at) => [...placesOf(bytes, marks[at])].map((to) => [to, at]))) {
        const source = at === 0 ? other : one;
        bytes.copy(changed, to + from, source + from, source + length);
      }
      const store = open(changed);
      for (const id of ["id-0", "id-1"]) await assert.rejects(store.get(id), { code: "ERR_STORE_CORRUPT" });
      assert.equal((await store.get("id-2")).userId, "ann");
    }
  });
});
