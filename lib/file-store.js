"use strict";

const native = require("./native.js");
const { fromNative, invalidOption, onBehalfOf } = require("./errors.js");
const { KIND, Metrics } = require("./metrics.js");
const { warnOfSeconds } = require("./durations.js");
const { warnOfLimits } = require("./limits-differ.js");
const { fileOptions, isTool, path: pathRule, progressOptions, validateOptions } = require("./options.js");
const { PendingCalls } = require("./pending-calls.js");
const { readSecrets } = require("./secrets.js");
const { SessionStore, callNative } = require("./session-store.js");

/** `store[backupInto](descriptor, options)`: `backup` into an empty file, given by its descriptor. Not on Windows. */
const backupInto = Symbol("backupInto");

// Calls that mostly complete synchronously.
const SAMPLED = [KIND.get];

/** Sessions in a file. `index.d.ts` documents it. */
class FileStore extends SessionStore {
  #store;

  constructor(options) {
    const { store, metrics, calls, given } = onBehalfOf(FileStore, () => open(options));
    super({ type: "file", path: native.pathOf(store) }, store, metrics, calls, given);
    this.#store = store;
    const differ = native.takeLimitsDiffer(store);
    if (differ !== null) warnOfLimits(this.db, JSON.parse(differ));
  }

  async stats() {
    const { log, ...counters } = await super.stats();
    return { ...counters, log: log ? { ...log } : null };
  }

  async backup(path, options) {
    if (!pathRule.accepts(path)) throw invalidOption("path", pathRule.expected, pathRule.describe(path));
    return this.#backup(options, (progress) => native.backup(this.#store, pathRule.read(path), progress));
  }

  [backupInto](descriptor, options) {
    return this.#backup(options, (progress) => native.backupInto(this.#store, descriptor, progress));
  }

  async #backup(options, call) {
    const { onProgress } = validateOptions(options, progressOptions, { of: "backup" });
    return { bytes: await withProgress(onProgress, "copied", call) };
  }

  async verify(options) {
    const { onProgress } = validateOptions(options, progressOptions, { of: "verify" });
    const { found, problems, ...counts } = await withProgress(onProgress, "checked", (progress) =>
      native.verify(this.#store, progress),
    );
    // Copy into an array of this realm: with jest, N-API creates arrays of another one.
    const sentences = Array.from(problems);
    if (found > sentences.length) sentences.push(`and ${found - sentences.length} more`);
    return { ok: found === 0, ...counts, problems: sentences };
  }
}

function open(options) {
  const what = { of: "FileStore", required: ["path"], main: "path" };
  const { secret, ...given } = validateOptions(options, fileOptions, what);
  const secrets = readSecrets(secret);
  const metrics = new Metrics(SAMPLED);
  const calls = new PendingCalls(metrics);
  const settings = { ...given, secrets, isTool: options[isTool] };
  const store = callNative(() => native.openFile(settings, calls.settle));
  calls.attach(store, { timeout: native.commandTimeoutOf(store) });
  warnOfSeconds("maxLifetime of FileStore", given.maxLifetime, { isLifetime: true });
  return { store, metrics, calls, given };
}

/** Runs a long native call. An error that `onProgress` throws rejects its promise. */
async function withProgress(onProgress, name, call) {
  let thrown;
  const progress = (done, total) => {
    if (onProgress === undefined || thrown) return;
    try {
      onProgress({ [name]: done, total });
    } catch (error) {
      // If it reached the addon, it would end the process.
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

module.exports = { FileStore, backupInto };
