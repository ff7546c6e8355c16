"use strict";

// Stand-ins for compiled SQLite drivers.

const WASM = JSON.stringify(require.resolve("node-sqlite3-wasm"));

/** In the form of better-sqlite3. Records the options with which files were opened. */
const BETTER_SQLITE3 = `
  const { Database } = require(${WASM});
  module.exports = class {
    constructor(file, options) {
      this.database = new Database(file, { readOnly: options?.readonly });
      if (options) require("node:fs").appendFileSync("opened", JSON.stringify([file, options]) + "\\n");
    }
    prepare(sql) {
      return { all: (...values) => this.database.all(sql, values) };
    }
    close() {
      this.database.close();
    }
  };`;

/** In the form of sqlite3. */
const SQLITE3 = `
  const { Database } = require(${WASM});
  exports.OPEN_READONLY = 1;
  exports.Database = class {
    constructor(file, mode, done) {
      if (mode !== 1) throw new Error("opened to write");
      this.database = new Database(file, { readOnly: true });
      setImmediate(done, null);
    }
    all(sql, values, done) {
      try {
        setImmediate(done, null, this.database.all(sql, values));
      } catch (error) {
        setImmediate(done, error);
      }
    }
    close(done) {
      this.database.close();
      setImmediate(done, null);
    }
  };`;

/** A driver that was compiled for another Node.js version. */
const BROKEN = `throw new Error("was compiled against a different Node.js version\\nusing\\nNODE_MODULE_VERSION 1");`;

/** For --require: as if there were no driver. */
const HIDE_ALL = `
  const Module = require("node:module");
  const HIDDEN = ["better-sqlite3", "sqlite3", "node-sqlite3-wasm", "node:sqlite"];
  const { _load, _resolveFilename } = Module;
  const refuse = (name) => {
    const code = name.startsWith("node:") ? "ERR_UNKNOWN_BUILTIN_MODULE" : "MODULE_NOT_FOUND";
    if (HIDDEN.includes(name)) throw Object.assign(new Error("no " + name), { code });
  };
  Module._resolveFilename = (name, ...rest) => (refuse(name), _resolveFilename(name, ...rest));
  Module._load = (name, ...rest) => (refuse(name), _load(name, ...rest));`;

module.exports = { BETTER_SQLITE3, BROKEN, HIDE_ALL, SQLITE3 };
