"use strict";

const path = require("node:path");
const { setImmediate: turn } = require("node:timers/promises");
const Database = require("better-sqlite3");

const TABLE =
  "CREATE TABLE IF NOT EXISTS sessions (id TEXT PRIMARY KEY, expires INTEGER NOT NULL, data TEXT NOT NULL)";
const EXPIRED = "SELECT id FROM sessions WHERE expires <= ? LIMIT ?";

class SqliteStore {
  getsAtOnce = true;
  #queue = [];

  constructor(directory) {
    this.db = new Database(path.join(directory, "sessions.db"));
    this.db.pragma("journal_mode = WAL");
    this.db.pragma("synchronous = FULL");
    this.db.exec(TABLE);
    this.selecting = this.db.prepare("SELECT data FROM sessions WHERE id = ?").pluck();
    this.inserting = this.db.prepare("INSERT INTO sessions VALUES (?, ?, ?)");
    this.deleting = this.db.prepare("DELETE FROM sessions WHERE id = ?");
    this.insertAll = this.db.transaction((sessions) => {
      for (const session of sessions) {
        this.inserting.run(session.sessionId, Date.parse(session.expires), JSON.stringify(session));
      }
    });
    this.deleteAll = this.db.transaction((ids) => {
      for (const id of ids) this.deleting.run(id);
    });
  }

  /** All creates of one turn of the event loop share a transaction, as an app would do it. */
  create(session) {
    return new Promise((resolve, reject) => {
      if (this.#queue.push({ session, resolve, reject }) === 1) setImmediate(() => this.#insertQueued());
    });
  }

  #insertQueued() {
    const queued = this.#queue;
    this.#queue = [];
    try {
      this.insertAll(queued.map(({ session }) => session));
      for (const { resolve } of queued) resolve();
    } catch (error) {
      for (const { reject } of queued) reject(error);
    }
  }

  async get(sessionId) {
    const text = this.selecting.get(sessionId);
    return text === undefined ? null : JSON.parse(text);
  }

  async fill(sessions) {
    this.insertAll(sessions);
    this.#emptyLog();
  }

  async remove(ids) {
    this.deleteAll(ids);
    this.#emptyLog();
  }

  /** Otherwise the log would stay as large as the largest transaction. */
  #emptyLog() {
    this.db.pragma("wal_checkpoint(TRUNCATE)");
  }

  async prepareClean() {
    this.db.exec("CREATE INDEX IF NOT EXISTS by_expiry ON sessions (expires)");
  }

  /** Deletes in one statement, or yields to the event loop after `atATime` sessions. */
  async clean(atATime) {
    const now = Date.now();
    if (atATime === undefined) {
      this.db.prepare("DELETE FROM sessions WHERE expires <= ?").run(now);
      return;
    }
    const deleting = this.db.prepare(`DELETE FROM sessions WHERE id IN (${EXPIRED})`);
    while (deleting.run(now, atATime).changes > 0) await turn();
  }

  async countLeft(ids) {
    let left = 0;
    for (const id of ids) if ((await this.get(id)) !== null) left++;
    return left;
  }

  async close() {
    this.db.close();
  }
}

module.exports = SqliteStore;
