"use strict";

// The store that STORE names, for the apps beside this file, and the runtime that they run on.
const { ConnectStore, FileStore, MemoryStore, RedisStore } = require("@fluidauth/native-store");

const { STORE, STORE_PATH: path, STORE_URL: url, STORE_PREFIX: prefix } = process.env;

const STORES = {
  FileStore: () => new FileStore({ path }),
  RedisStore: () => new RedisStore({ url, prefix }),
  MemoryStore: () => new MemoryStore(),
};

function runtimeHere() {
  const { bun, deno, node } = process.versions;
  if (bun) return `Bun ${bun}`;
  return deno ? `Deno ${deno}` : `Node.js ${node}`;
}

const runtime = runtimeHere();
const store = new ConnectStore(STORES[STORE](), { userId: (session) => session.userId });

// In this form: an ES module finds no names in an object with calls.
module.exports = { runtime, store };
