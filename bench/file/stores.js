"use strict";

const path = require("node:path");

/**
 * The stores that are compared, ours first. `sync` is what a resolved create has seen, `index` what the store finds
 * a session by; `share` is of the sessions that the others hold.
 */
const STORES = {
  native: {
    label: "native-store",
    module: "native.js",
    sync: "fdatasync, batches of what is queued",
    index: "id, user, expiry",
  },
  lmdb: {
    label: "lmdb-js",
    package: "lmdb",
    module: "lmdb.js",
    sync: "fdatasync (`flushed`), batches of what is queued",
    index: "id",
  },
  sqlite: {
    label: "better-sqlite3",
    package: "better-sqlite3",
    module: "sqlite.js",
    sync: "fdatasync (WAL, synchronous=FULL), a transaction for all that is queued",
    index: "id; for the sweep also expiry",
  },
  files: {
    label: "session-file-store",
    package: "session-file-store",
    module: "session-files.js",
    sync: "fsync of its file, but not of the directory that names it",
    index: "id",
    share: 1 / 10,
  },
  raw: {
    label: "raw append",
    module: "raw-append.js",
    sync: "fdatasync of 232 B a create, batches of what is queued: a floor, no store",
    index: "none",
    isFloor: true,
  },
};

const OURS = "native";
const NAMES = Object.keys(STORES);
const labelOf = (name) => STORES[name].label;

/** How many sessions a store is filled with where the others have `size`. */
const sizeOf = (name, size) => size * (STORES[name].share ?? 1);

const directoryOf = (name, directory) => path.join(directory, name);

/**
 * The class of a store, which takes the directory that it is in. It has `create(session)`, which resolves once the
 * session is on disk, `get(id)`, which resolves to a fresh copy, and, for what is not timed, `fill(sessions)`,
 * `remove(ids)` and `close()`; those that sweep have `clean()` too.
 */
const loadStore = (name) => require(`./stores/${STORES[name].module}`);

const openStore = (name, directory) => new (loadStore(name))(directoryOf(name, directory));

module.exports = { STORES, OURS, NAMES, labelOf, sizeOf, directoryOf, loadStore, openStore };
