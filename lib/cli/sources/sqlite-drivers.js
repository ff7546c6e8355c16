"use strict";

const { wrongUsage } = require("../failures.js");
const { findInApp, loadPackage } = require("./app-packages.js");

// Each entry makes of a module a function that opens a file for reading alone, as `{ all(sql, ...values), close() }`, of
// values or of promises.
const drivers = {
  "better-sqlite3": (Database) => {
    // Only now it loads its binary, which may be of another Node.js.
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

// Its locks are folders of its own, which no other SQLite knows: hence it comes last, too.
const WITHOUT_LOCKS = ["node-sqlite3-wasm"];

/**
 * The first driver that is there and loads: `open` opens a file, and `isLocked` tells if other processes notice.
 * @param {string} user The package whose store it is, which may have a driver to itself.
 */
function findDriver(user) {
  const { name, driver, broken } = findInApp(drivers, { user, load });
  if (driver) return { name, open: driver, isLocked: !WITHOUT_LOCKS.includes(name) };
  const why = ["an SQLite file can only be read with a driver", ...broken].join("; ");
  throw wrongUsage(
    `${why}; npm install better-sqlite3 in this folder, or run this with Node.js 22.13 or later`,
  );
}

/** The module, or `null` where there is none. */
function load(name, requireFrom) {
  return name === "node:sqlite" ? loadBuiltin(name) : loadPackage(name, requireFrom);
}

function loadBuiltin(name) {
  // Some releases before have it behind a flag, and know no way to open a file for reading alone.
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < 22 || (major === 22 && minor < 13)) return null;
  const { emitWarning } = process;
  // That it is experimental is nothing to whoever imports sessions.
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

/** The result of what calls back. */
function promised(start) {
  return new Promise((resolve, reject) => {
    start((error, result) => (error ? reject(error) : resolve(result)));
  });
}

module.exports = { findDriver };
