"use strict";

const os = require("node:os");
const { FileStore, MemoryStore } = require("../..");
const { withDirectory } = require("../disk.js");
const { withPauses } = require("./collector.js");
const { after, watchTurns } = require("./watch.js");

const QUIET = 500;
const AFTERMATH = 100;
// 50 of the largest sessions fit into the queue of a FileStore.
const AT_ONCE = 50;
const SECRET = "a secret of the benchmark, and of nothing else";
const expires = new Date(Date.now() + 1e9).toISOString();

/** Creates `count` sessions. `sessionOf` makes each from its number. */
async function fill(store, count, sessionOf) {
  for (let from = 0; from < count; from += AT_ONCE) {
    const some = Array.from({ length: Math.min(AT_ONCE, count - from) }, (_, at) =>
      store.create(sessionOf(from + at)),
    );
    await Promise.all(some);
  }
}

const ofOneUser = (at) => ({ sessionId: `one-${at}`, userId: "one", expires, cart: [at] });
const ofOwnUser = (at) => ({ sessionId: `own-${at}`, userId: `user-${at}`, expires });
const large = (at) => ({ sessionId: `large-${at}`, userId: "one", expires, pad: "x".repeat(900_000) });

async function readIds(store) {
  let count = 0;
  for await (const _ of store.ids()) count++;
  return count;
}

/** Calls that read many sessions: the content of the store, and the call. */
const CALLS = {
  "getByUser of 50k sessions": {
    count: 50_000,
    sessionOf: ofOneUser,
    call: (store) => store.getByUser("one"),
  },
  "deleteByUser of 50k sessions": {
    count: 50_000,
    sessionOf: ofOneUser,
    call: (store) => store.deleteByUser("one"),
  },
  "3000 deleteByUser at once": {
    count: 3000,
    sessionOf: ofOwnUser,
    call: (store) => Promise.all(Array.from({ length: 3000 }, (_, at) => store.deleteByUser(`user-${at}`))),
  },
  "ids of 50k sessions": { count: 50_000, sessionOf: ofOneUser, call: readIds },
  "ids of 300 sessions of 900 kB": { count: 300, sessionOf: large, call: readIds },
};

/** Measures the longest gap in milliseconds during a call that reads many sessions. */
async function longestGapOfCold({ store: kind, call: name }) {
  if (kind === "memory") return measure(new MemoryStore(), CALLS[name]);
  const secret = kind === "encrypted file" ? { secret: SECRET } : {};
  return withDirectory(os.tmpdir(), (path) => measure(new FileStore({ path, ...secret }), CALLS[name]));
}

async function measure(store, { count, sessionOf, call }) {
  try {
    await fill(store, count, sessionOf);
    global.gc();
    const quiet = await watchTurns(after(QUIET));
    const watched = await withPauses(async () => {
      const start = performance.now();
      let end = Number.POSITIVE_INFINITY;
      const watching = watchTurns((now) => now >= end + AFTERMATH);
      await call(store);
      end = performance.now();
      return { took: end - start, longest: await watching };
    });
    return { quiet, ...watched };
  } finally {
    await store.close();
  }
}

module.exports = { COLD_CALLS: Object.keys(CALLS), longestGapOfCold };
