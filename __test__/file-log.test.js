"use strict";

// The redo log of a FileStore, as `stats()` shows it.

const assert = require("node:assert/strict");
const { describe, it } = require("node:test");
const { FileStore } = require("..");
const { session } = require("./conformance.js");
const { startProcess, startThread } = require("./support/file-peers.js");
const { makePlace } = require("./support/file-places.js");

const { next: newFolder } = makePlace({ onDisk: true });

/** A test of a new store with a log. Skipped if the system or the file system supports no log. */
function itWithLog(title, options, body) {
  it(title, async (t) => {
    const given = { path: newFolder(), ...options };
    const store = new FileStore(given);
    try {
      await store.create(session());
      if ((await store.stats()).log === null) return t.skip("no log on this system or file system");
      await body(store, given);
    } finally {
      await store.close();
    }
  });
}

async function withPeer(start, call) {
  const peer = await start();
  try {
    return await call(peer);
  } finally {
    await peer.stop();
  }
}

for (const durability of ["commit", "everysec"]) {
  describe(`the log of durability ${durability}`, () => {
    itWithLog(
      "is used while one process has the store, in any of its threads",
      { durability },
      async (store, given) => {
        await withPeer(startThread, async (thread) => {
          const theirs = await thread.open(given);
          const written = session();
          await theirs.create(written);
          assert.deepEqual(await store.get(written.sessionId), written);
          const { mode, usedBytes, sizeBytes } = (await store.stats()).log;
          assert.equal(mode, "exclusive");
          assert.ok(sizeBytes > 0, `${sizeBytes} bytes`);
          assert.ok(usedBytes >= 0 && usedBytes <= sizeBytes, `${usedBytes} of ${sizeBytes} bytes`);
          await theirs.close();
        });
      },
    );

    itWithLog("is not used while another process has the store too", { durability }, async (store, given) => {
      await withPeer(startProcess, async (other) => {
        const theirs = await other.open(given);
        assert.equal((await store.stats()).log.mode, "shared");
        const written = session();
        await store.create(written);
        assert.deepEqual(await theirs.get(written.sessionId), written);
        assert.equal((await store.stats()).log.usedBytes, 0);
        await theirs.close();
      });
    });
  });
}
