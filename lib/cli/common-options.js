"use strict";

const DEFAULT_PATH = "./sessions";

/** The options of every command. */
const commonOptions = {
  path: {
    value: "<dir>",
    help: `the store's directory; else $NATIVE_STORE_PATH, else ${DEFAULT_PATH}`,
  },
  "secret-file": {
    value: "<file>",
    help: "the secrets of an encrypted store, one a line; else $NATIVE_STORE_SECRET",
  },
  quiet: { help: "no progress and no summary: answers and errors only" },
  help: { help: "this text" },
};

module.exports = { DEFAULT_PATH, commonOptions };
