"use strict";

const path = require("node:path");

const SYNC_OF_OURS = "fdatasync, batches of what is queued";
const INDEX_OF_OURS = "id, user, expiry";

/**
 * The compared stores, ours first. `sync`: what has happened when a create resolves. `index`: the indexes of the store.
 * `share`: the number of sessions, relative to the others.
 */
const STORES = {
  native: {
    label: "native-store",
    module: "native.js",
    sync: SYNC_OF_OURS,
    index: INDEX_OF_OURS,
  },
  before: {
    label: "native-store, --before",
    module: "native.js",
    sync: SYNC_OF_OURS,
    index: INDEX_OF_OURS,
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

/** Stores that only one stage compares. `folder`: the store whose sessions they open. */
const VARIANTS = {
  everysec: {
    label: 'native-store, durability: "everysec"',
    module: "native.js",
    options: { durability: "everysec" },
    folder: "native",
  },
  memory: { label: "MemoryStore", module: "memory.js" },
};

const OURS = "native";
/** Our store of an older version. It is compared only if its folder is given. */
const BEFORE = "before";
const NAMES = Object.keys(STORES);
const describe = (name) => STORES[name] ?? VARIANTS[name];
const labelOf = (name) => describe(name).label;

/** Returns the number of sessions of a store if the others have `size`. */
const sizeOf = (name, size) => size * (describe(name).share ?? 1);

const directoryOf = (name, directory) => path.join(directory, describe(name).folder ?? name);

/**
 * Loads the package of a store, and returns a function that opens the store in its directory. `from`: the folder of an
 * older version of our package.
 *
 * A store has `create(session)`, which resolves once the session is on disk, and `get(id)`, which resolves to a fresh
 * copy. `fill(sessions)`, `remove(ids)` and `close()` are not measured. Stores that sweep have `clean()`. `NativeStore`
 * has more methods.
 */
function loadStore({ store: name, directory, from }) {
  const { module, options } = describe(name);
  const Store = require(`./stores/${module}`);
  Store.load?.(from);
  return () => new Store(directoryOf(name, directory), { from, ...options });
}

const openStore = (args) => loadStore(args)();

module.exports = { STORES, OURS, BEFORE, NAMES, labelOf, sizeOf, directoryOf, loadStore, openStore };
