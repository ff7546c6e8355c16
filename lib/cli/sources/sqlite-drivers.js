"use strict";

const { wrongUsage } = require("../failures.js");
const { findInApp, loadPackage } = require("./app-packages.js");

// Each entry adapts a module to a function that opens a file read-only: `{ all(sql, ...values), close() }`. They return
// values or promises.
const drivers = {
  "better-sqlite3": (Database) => {
    // It loads its binary only now, which may be for another Node.js version.
    new Database(":memory:").close();
    return (file) => {
      const database = new Database(file, { readonly: true, fileMustExist: true });
      return {
        all: (sql, ...values) => database.prepare(sql).all(...values),
        close: () => database.close(),
      };
    };
  },
  sqlite3:
    ({ Database, OPEN_READONLY }) =>
    async (file) => {
      let database;
      await promised((done) => {
        database = new Database(file, OPEN_READONLY, done);
      });
      return {
        all: (sql, ...values) => promised((done) => database.all(sql, values, done)),
        close: () => promised((done) => database.close(done)),
      };
    },
  "node:sqlite":
    ({ DatabaseSync }) =>
    (file) => {
      const database = new DatabaseSync(file, { readOnly: true });
      return {
        all: (sql, ...values) => database.prepare(sql).all(...values),
        close: () => database.close(),
      };
    },
  "node-sqlite3-wasm":
    ({ Database }) =>
    (file) => {
      const database = new Database(file, { readOnly: true });
      return { all: (sql, ...values) => database.all(sql, values), close: () => database.close() };
    },
};

// Its locks are folders, which no other SQLite respects. So it comes last.
const WITHOUT_LOCKS = ["node-sqlite3-wasm"];

/**
 * Finds the first driver that is installed and loads. `open` opens a file, and `isLocked` says whether other processes
 * respect its locks.
 * @param {string} user The package of the store, which may have its own driver.
 */
function findDriver(user) {
  const { name, driver, broken } = findInApp(drivers, { user, load });
  if (driver) return { name, open: driver, isLocked: !WITHOUT_LOCKS.includes(name) };
  const why = ["an SQLite file can only be read with a driver", ...broken].join("; ");
  throw wrongUsage(
    `${why}; npm install better-sqlite3 in this folder, or run this with Node.js 22.13 or later`,
  );
}

/** Loads a module, or returns `null` if it is not installed. */
function load(name, requireFrom) {
  return name === "node:sqlite" ? loadBuiltin(name) : loadPackage(name, requireFrom);
}

function loadBuiltin(name) {
  // Some earlier releases have it behind a flag, and cannot open a file read-only.
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < 22 || (major === 22 && minor < 13)) return null;
  const { emitWarning } = process;
  // Suppress the warning that it is experimental.
  process.emitWarning = () => {};
  try {
    return require(name);
  } catch (error) {
    if (error.code === "ERR_UNKNOWN_BUILTIN_MODULE") return null;
    throw error;
  } finally {
    process.emitWarning = emitWarning;
  }
}

/** Converts a callback to a promise. */
function promised(start) {
  return new Promise((resolve, reject) => {
    start((error, result) => (error ? reject(error) : resolve(result)));
  });
}

module.exports = { findDriver };
