"use strict";

const { setImmediate } = require("node:timers/promises");
const { EXIT, Failure, wrongUsage } = require("../failures.js");
const { findDriver } = require("./sqlite-drivers.js");
const { UNFINISHED, isUnfinished, readablePath } = require("./sqlite-file.js");

// Rows per query. Few, because a session may be large.
const PAGE = 100;

/** A table of the database that the task's operand names, opened read-only. */
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
      // SQLite only reports that it may not write.
      const reason = /readonly database/.test(message) && isUnfinished(file) ? UNFINISHED : message;
      return new Failure(EXIT.failed, `cannot read ${task.operand}: ${reason} (${driver.name})`);
    };
    const database = await attempt(() => driver.open(file), failure);
    task.defer(() => database.close());
    const query = (sql, ...values) => attempt(() => database.all(sql, ...values), failure);
    await query("PRAGMA busy_timeout = 5000");
    return new SqliteTable(name, query);
  }

  /** Returns the names of the columns. Throws if the table does not exist. */
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
   * Iterates over the rows, with their `rowid`. Each page is a separate read: a single read would block the writes of a
   * running app, and some drivers cannot pause.
   */
  async *rows(columns) {
    const table = quoted(this.#name);
    const sql = `SELECT rowid, ${columns} FROM ${table} WHERE rowid > ? ORDER BY rowid LIMIT ${PAGE}`;
    let page = await this.#query(sql, Number.MIN_SAFE_INTEGER);
    while (page.length > 0) {
      yield* page;
      // Some drivers are synchronous, and a signal needs a turn of the event loop.
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
