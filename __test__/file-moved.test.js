"use strict";

// The store's folder is removed, moved or replaced while the store is open.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const { describe, it } = require("node:test");
const { FileStore } = require("..");
const { makePlace, skip } = require("./support/file-places.js");
const { session } = require("./support/file-session.js");

const place = makePlace();

const losses = {
  removed: (dir) => fs.rmSync(dir, { recursive: true }),
  moved: (dir) => fs.renameSync(dir, `${dir}-moved`),
  "replaced by a backup": async (dir, store) => {
    await store.backup(`${dir}-backup`);
    fs.rmSync(dir, { recursive: true });
    fs.renameSync(`${dir}-backup`, dir);
  },
};

describe("a folder that is lost while the store is open", { skip }, () => {
  for (const [what, lose] of Object.entries(losses)) {
    it(`fails every call when it is ${what}`, async () => {
      const dir = place.next();
      const store = new FileStore({ path: dir });
      await store.create(session("a"));
      await lose(dir, store);
      const lost = {
        code: "ERR_STORE_IO",
        message: /were removed, moved or replaced.* open the path again/,
      };
      await assert.rejects(store.create(session("b")), lost);
      await assert.rejects(store.get("a"), lost);
      await assert.rejects(store.deleteByUser("ann"), lost);
      await assert.rejects(store.size(), lost);
      const { ok, problems } = await store.verify();
      assert.equal(ok, false);
      assert.match(problems[0], lost.message);
      await store.close();
    });
  }

  it("is detected by the background sweep", { timeout: 60_000 }, async () => {
    const dir = place.next();
    const store = new FileStore({ path: dir, sweepInterval: 10 });
    await store.create(session("a"));
    losses.removed(dir);
    // A read does not check the folder.
    while (await store.get("a").catch(({ code }) => assert.equal(code, "ERR_STORE_IO"))) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await store.close();
  });

  it("can be opened again once the store is closed", async () => {
    const dir = place.next();
    const store = new FileStore({ path: dir });
    await store.create(session("a"));
    losses.removed(dir);
    await assert.rejects(store.create(session("b")), { code: "ERR_STORE_IO" });
    await store.close();
    const again = new FileStore({ path: dir });
    assert.equal(await again.size(), 0);
    await again.create(session("b"));
    await again.close();
  });
});
