"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const { ConnectStore } = require("../../connect.js");
const { Bench } = require("./cli.js");

/** A bench for `native-store import --from`. */
class ImportBench extends Bench {
  /** Runs an import, which must succeed. Returns its summary. */
  async imports(args, options) {
    const { code, stdout, stderr } = await this.run(args, options);
    assert.deepEqual({ code, stdout }, { code: 0, stdout: "" }, stderr);
    return stderr;
  }

  /** Runs an import, which must be refused with a one-line reason. */
  async refuses(args, words, { code: exitCode = 2, ...options } = {}) {
    const { code, stdout, stderr } = await this.run(args, options);
    assert.match(stderr, /^native-store: [^\n]+\n$/);
    assert.match(stderr, words);
    assert.deepEqual([code, stdout], [exitCode, ""]);
    return stderr;
  }

  /** The environment of a run in which this package cannot load these modules. The app's own modules still load. */
  hiding(...packages) {
    const source = `
      const Module = require("node:module");
      const { _resolveFilename } = Module;
      Module._resolveFilename = (name, parent, ...rest) => {
        const isHidden = ${JSON.stringify(packages)}.includes(name) && !parent.filename.startsWith(process.cwd());
        if (isHidden) throw new Error("no " + name);
        return _resolveFilename(name, parent, ...rest);
      };`;
    fs.writeFileSync(this.in("hide.js"), source);
    return { NODE_OPTIONS: `--require ${JSON.stringify(this.in("hide.js"))}` };
  }

  /** Resolves to the stored record of an id. */
  async stored(id) {
    const store = this.open();
    const session = await store.get(id);
    await store.close();
    return session;
  }

  async storedIds() {
    const { stdout } = await this.run(["list"]);
    return [...stdout.matchAll(/^[^\t]+/gm)].map(([id]) => id).sort();
  }

  /** Resolves to the session of an id in the ConnectStore of the migrated app. */
  async connectGet(sid, options) {
    const store = new ConnectStore(this.open(), options);
    const session = await store.get(sid);
    await store.close();
    return session;
  }
}

const withoutUser = (where = "") =>
  `no session has a user${where}: destroyByUser and revoke --user do not find them. To give them one, import again before the app starts, with ` +
  "--replace and --user-field, such as --user-field passport.user\n";

/** Returns the summary of an import. Without `hasUsers`, no session has a user. */
const summary = (created, { existing = 0, expired = 0, unreadable, hasUsers = false } = {}) =>
  `${created.toLocaleString("en")} session${created === 1 ? "" : "s"} imported; skipped: ${existing} existing, ${expired} expired` +
  `${unreadable ? `, ${unreadable} unreadable` : ""}\n` +
  (hasUsers || created + existing + expired === 0 ? "" : withoutUser());

module.exports = { ImportBench, summary, withoutUser };
