"use strict";

const native = require("../binding.js");
const { fileOptions, validateOptions } = require("./options.js");
const { readSecrets } = require("./secrets.js");
const { SessionStore, open } = require("./session-store.js");
const { Writes } = require("./writes.js");

/** Sessions in a file. `index.d.ts` documents it. */
class FileStore extends SessionStore {
  constructor(options) {
    const { secret, durability, ...given } = validateOptions(options, fileOptions, ["path"]);
    const secrets = readSecrets(secret);
    const writes = new Writes();
    const store = open(() => native.openFile({ ...given, secrets }, writes.settle));
    super({ type: "file", path: native.pathOf(store) }, writes.serve(store), writes);
  }
}

module.exports = { FileStore };
