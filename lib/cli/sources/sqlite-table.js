"use strict";

const { setImmediate } = require("node:timers/promises");
const { EXIT, Failure, wrongUsage } = require("../failures.js");
const { findDriver } = require("./sqlite-drivers.js");
const { UNFINISHED, isUnfinished, readablePath } = require("./sqlite-file.js");

// Few, as a session may be large.
const PAGE = 100;

/** A table of the database that the task's operand names, opened for reading alone. */
class SqliteTable {
  #name;
  #query;

  constructor(name, query) {
    this.#name = name;
    this.#query = query;
  }

  static async open(task, name) {
    const driver = findDriver(task.options.from);
    const file = await readablePath(task, task.operand, driver);
    const failure = ({ message }) => {
      // All that SQLite says is that it may not write.
      const reason = /readonly database/.test(message) && isUnfinished(file) ? UNFINISHED : message;
      return new Failure(EXIT.failed, `cannot read ${task.operand}: ${reason} (${driver.name})`);
    };
    const database = await attempt(() => driver.open(file), failure);
    task.defer(() => database.close());
    const query = (sql, ...values) => attempt(() => database.all(sql, ...values), failure);
    await query("PRAGMA busy_timeout = 5000");
    return new SqliteTable(name, query);
  }

  /** The names of its columns. Throws where there is no such table. */
  async columns(file) {
    const columns = await this.#query(`PRAGMA table_info(${quoted(this.#name)})`);
    if (columns.length > 0) return columns.map(({ name }) => name);
    const tables = await this.#query("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name");
    const found = tables.map(({ name }) => name).join(", ");
    throw wrongUsage(`${file} has no table ${this.#name}; ${found ? `it has ${found}` : "it has none"}`);
  }

  async count() {
    const [{ total }] = await this.#query(`SELECT count(*) AS total FROM ${quoted(this.#name)}`);
    return total;
  }

  /**
   * Each row, with its `rowid`. Each page is a read of its own: one for all would keep a running app from writing, and
   * not every driver could wait for whoever takes the rows.
   */
  async *rows(columns) {
    const table = quoted(this.#name);
    const sql = `SELECT rowid, ${columns} FROM ${table} WHERE rowid > ? ORDER BY rowid LIMIT ${PAGE}`;
    let page = await this.#query(sql, Number.MIN_SAFE_INTEGER);
    while (page.length > 0) {
      yield* page;
      // Some drivers answer without a turn of the event loop, and a signal needs one.
      await setImmediate();
      page = await this.#query(sql, page.at(-1).rowid);
    }
  }
}

const quoted = (name) => `"${name.replaceAll('"', '""')}"`;

async function attempt(call, failureOf) {
  try {
    return await call();
  } catch (error) {
    throw failureOf(error);
  }
}

module.exports = { SqliteTable };
