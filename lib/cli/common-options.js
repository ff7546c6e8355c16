"use strict";

const DEFAULT_PATH = "./sessions";

/** The options of every command. */
const commonOptions = {
  path: {
    value: "<dir>",
    help: `the store's directory; else $NATIVE_STORE_PATH, else ${DEFAULT_PATH}`,
  },
  redis: {
    value: "<url>",
    help: "a RedisStore in its place; of a cluster some nodes, with commas; else $NATIVE_STORE_REDIS_URL",
  },
  "redis-prefix": {
    value: "<text>",
    help: "with Redis: the prefix of the app's RedisStore, if it is not fluid:",
  },
  "redis-ca": {
    value: "<file>",
    help: "with rediss://: the certificates of the authorities to trust, as PEM",
  },
  "secret-file": {
    value: "<file>",
    help: "the secrets of an encrypted store, one a line; else $NATIVE_STORE_SECRET",
  },
  "allow-network-fs": {
    help: "opens a store on NFS, SMB, FUSE and the like, if only this machine uses it",
  },
  quiet: { help: "no progress and no summary: answers and errors only" },
  help: { help: "this text" },
};

module.exports = { DEFAULT_PATH, commonOptions };
