"use strict";

const DEFAULT_PATH = "./sessions";

/** The options of every command. */
const commonOptions = {
  path: {
    value: "<dir>",
    help: `the store folder. Default: $NATIVE_STORE_PATH, then ${DEFAULT_PATH}`,
  },
  redis: {
    value: "<url>",
    help: "a RedisStore instead (cluster: nodes with commas). Default: $NATIVE_STORE_REDIS_URL",
  },
  "redis-prefix": {
    value: "<text>",
    help: "with Redis: the prefix of the app's RedisStore, if it is not fluid:",
  },
  "redis-ca": {
    value: "<file>",
    help: "with rediss://: the authorities to trust, as PEM",
  },
  "secret-file": {
    value: "<file>",
    help: "the secrets of an encrypted store, one per line. Default: $NATIVE_STORE_SECRET",
  },
  "allow-network-fs": {
    help: "opens a store on a network file system, if only this machine uses it",
  },
  quiet: { help: "no progress and no summary: answers and errors only" },
  help: { help: "this text" },
};

module.exports = { DEFAULT_PATH, commonOptions };
