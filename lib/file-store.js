"use strict";

const native = require("./native.js");
const { fromNative, invalidOption, kindOf } = require("./errors.js");
const { fileOptions, path: pathRule, progressOptions, validateOptions } = require("./options.js");
const { readSecrets } = require("./secrets.js");
const { SessionStore, open } = require("./session-store.js");
const { Writes } = require("./writes.js");

/** Sessions in a file. `index.d.ts` documents it. */
class FileStore extends SessionStore {
  #store;

  constructor(options) {
    const { secret, durability, ...given } = validateOptions(options, fileOptions, ["path"]);
    const secrets = readSecrets(secret);
    const writes = new Writes();
    const store = open(() => native.openFile({ ...given, secrets }, writes.settle));
    super({ type: "file", path: native.pathOf(store) }, writes.serve(store), writes);
    this.#store = store;
  }

  async backup(path, options) {
    if (!pathRule.accepts(path)) throw invalidOption("path", pathRule.expected, kindOf(path));
    const { onProgress } = validateOptions(options, progressOptions);
    const bytes = await withProgress(onProgress, "copied", (progress) =>
      native.backup(this.#store, path, progress),
    );
    return { bytes };
  }

  async verify(options) {
    const { onProgress } = validateOptions(options, progressOptions);
    const { found, problems, ...counts } = await withProgress(onProgress, "checked", (progress) =>
      native.verify(this.#store, progress),
    );
    const untold = found - problems.length;
    if (untold > 0) problems.push(`and ${untold} more`);
    return { ok: found === 0, ...counts, problems };
  }
}

/** Runs a long native call, whose promise rejects with what `onProgress` throws. */
async function withProgress(onProgress, name, call) {
  let thrown;
  const progress = (done, total) => {
    if (onProgress === undefined || thrown) return;
    try {
      onProgress({ [name]: done, total });
    } catch (error) {
      // In the addon's hands it would end the process.
      thrown = { error };
    }
  };
  let result;
  try {
    result = await call(progress);
  } catch (error) {
    throw fromNative(error);
  }
  if (thrown) throw thrown.error;
  return result;
}

module.exports = { FileStore };
