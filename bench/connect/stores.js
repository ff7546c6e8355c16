"use strict";

const { mkdirSync } = require("node:fs");
const path = require("node:path");
const { FileStore, MemoryStore } = require("../..");
const { ConnectStore } = require("../../connect.js");

const MINUTE = 60_000;

/**
 * The compared stores, ours first. `answersAfter`: what a store has done when it reports a session as saved. `open`
 * takes the store's own directory. Each process loads only the packages that it needs.
 */
const STORES = {
  memory: {
    label: "ours, MemoryStore",
    answersAfter: "copying it to native memory",
    open: () => new ConnectStore(new MemoryStore()),
  },
  file: {
    label: "ours, FileStore",
    answersAfter: "fdatasync, batches of what is queued",
    open: (directory) => new ConnectStore(new FileStore({ path: directory })),
  },
  lazy: {
    label: "ours, FileStore, touchAfter 60 s",
    answersAfter: "the same; a touch within 60 s of the last: nothing",
    open: (directory) => new ConnectStore(new FileStore({ path: directory }), { touchAfter: MINUTE }),
  },
  express: {
    label: "express-session MemoryStore",
    answersAfter: "keeping its JSON text",
    open: () => new (require("express-session").MemoryStore)(),
  },
  memorystore: {
    label: "memorystore",
    answersAfter: "keeping its JSON text",
    open: () => new (require("memorystore")(require("express-session")))({ checkPeriod: 60 * MINUTE }),
  },
  sessionFiles: {
    label: "session-file-store",
    package: "session-file-store",
    answersAfter: "fsync of its file, but not of the directory that names it",
    open: (directory) => {
      const Store = require("session-file-store")(require("express-session"));
      return new Store({ path: directory, logFn: () => {} });
    },
  },
  sqlite: {
    label: "better-sqlite3-session-store",
    package: "better-sqlite3",
    answersAfter: "fdatasync (WAL, synchronous=FULL) on the main thread",
    open: (directory) => openSqlite(directory, "FULL"),
  },
  sqliteNormal: {
    label: "better-sqlite3-session-store, NORMAL",
    package: "better-sqlite3",
    answersAfter: "handing it to the system (WAL, synchronous=NORMAL, the default)",
    open: (directory) => openSqlite(directory, "NORMAL"),
  },
  connectSqlite: {
    label: "connect-sqlite3",
    package: "sqlite3",
    answersAfter: "fdatasync (WAL, synchronous=FULL, the default)",
    open: (directory) => {
      const Store = require("connect-sqlite3")(require("express-session"));
      return new Store({ dir: directory, db: "sessions.db", concurrentDb: true });
    },
  },
};

function openSqlite(directory, synchronous) {
  const client = new (require("better-sqlite3"))(path.join(directory, "sessions.db"));
  client.pragma("journal_mode = WAL");
  client.pragma(`synchronous = ${synchronous}`);
  const Store = require("better-sqlite3-session-store")(require("express-session"));
  return new Store({ client });
}

/** Code that fails if a package, or the addon that it ships or builds, is missing. */
const TRIALS = {
  autocannon: 'require("autocannon")',
  "better-sqlite3": 'new (require("better-sqlite3"))(":memory:"); require("better-sqlite3-session-store")',
  "session-file-store": 'require("session-file-store")',
  sqlite3: 'require("sqlite3"); require("connect-sqlite3")',
};

const NAMES = Object.keys(STORES);
const OURS = ["memory", "file", "lazy"];
const labelOf = (name) => STORES[name].label;

function openStore(name, directory) {
  mkdirSync(directory, { recursive: true });
  return STORES[name].open(directory);
}

module.exports = { NAMES, OURS, STORES, TRIALS, labelOf, openStore };
