"use strict";

const { writeFileSync } = require("node:fs");
const path = require("node:path");
const expressSession = require("express-session");
const createFileStore = require("session-file-store");
const { closedLoop } = require("../../closed-loop.js");

const FileStore = createFileStore(expressSession);
const IN_FLIGHT = 16;

/** session-file-store: one file per session, written to a temporary name and renamed. */
class SessionFilesStore {
  constructor(directory) {
    this.directory = directory;
    this.store = new FileStore({ path: directory, reapInterval: -1, logFn: () => {} });
  }

  create(session) {
    return new Promise((resolve, reject) => {
      this.store.set(session.sessionId, session, (error) => (error ? reject(error) : resolve()));
    });
  }

  get(sessionId) {
    return new Promise((resolve, reject) => {
      this.store.get(sessionId, (error, session) => (error ? reject(error) : resolve(session ?? null)));
    });
  }

  /** Writes the files directly, without fsync: the store's `set` would take minutes. */
  async fill(sessions) {
    for (const session of sessions) {
      const text = JSON.stringify({ ...session, __lastAccess: Date.now() });
      writeFileSync(path.join(this.directory, `${session.sessionId}.json`), text);
    }
  }

  remove(ids) {
    const destroy = (id) =>
      new Promise((resolve, reject) => {
        this.store.destroy(id, (error) => (error ? reject(error) : resolve()));
      });
    return closedLoop(IN_FLIGHT, ids, destroy);
  }

  async close() {}
}

module.exports = SessionFilesStore;
