"use strict";

// Makes stores of session-file-store, connect-sqlite3 and better-sqlite3-session-store.

const fs = require("node:fs");
const path = require("node:path");
const { Database } = require("node-sqlite3-wasm");

const HOUR = 3_600_000;

/** Returns a session in the form of express-session. Without a `maxAge` its cookie has no expiry. */
function connectSession(data = {}, { maxAge = HOUR, from = Date.now() } = {}) {
  const expires = maxAge === null ? null : new Date(from + maxAge).toISOString();
  return { cookie: { originalMaxAge: maxAge, expires, secure: false, httpOnly: true, path: "/" }, ...data };
}

/** Returns a session in the form of session-file-store. */
function asFile(session, lastAccess = Date.now()) {
  const isObject = session !== null && !Array.isArray(session);
  return JSON.stringify(isObject ? { ...session, __lastAccess: lastAccess } : session);
}

/** Returns the file content of session-file-store with a secret. */
const encryptedFile = () =>
  JSON.stringify({
    hmac: "8a1f\u0081".repeat(13),
    ct: "\u0013\u00f2a cipher text".repeat(9),
    iv: Buffer.alloc(12, 1),
    salt: Buffer.alloc(128, 2),
    aad: "\u00a4\u0010".repeat(32),
    at: Buffer.alloc(16, 3),
  });

/** Creates a folder with these files. */
function writeFiles(folder, files) {
  fs.mkdirSync(folder, { recursive: true });
  for (const [name, text] of Object.entries(files)) fs.writeFileSync(path.join(folder, name), text);
}

const CONNECT_SQLITE3 = "(sid PRIMARY KEY, expired, sess)";
const BETTER_SQLITE3 = "(sid TEXT NOT NULL PRIMARY KEY, sess JSON NOT NULL, expire TEXT NOT NULL)";

/** Creates a database with such a table and these rows. */
function makeDatabase(file, columns, rows, table = "sessions") {
  const database = new Database(file);
  const quoted = `"${table.replaceAll('"', '""')}"`;
  database.exec(`CREATE TABLE ${quoted} ${columns}; BEGIN`);
  const insert = database.prepare(`INSERT INTO ${quoted} VALUES (?, ?, ?)`);
  for (const row of rows) insert.run(row);
  database.exec("COMMIT");
  insert.finalize();
  database.close();
}

/** A row of connect-sqlite3. */
const connectRow = (sid, session, end = Date.now() + HOUR) => [sid, end, JSON.stringify(session)];

/** A row of better-sqlite3-session-store. */
const betterRow = (sid, session, end = Date.now() + HOUR) => [
  sid,
  JSON.stringify(session),
  new Date(end).toISOString(),
];

/** Converts a database to a closed one with a write-ahead log. */
function giveLog(file) {
  const bytes = fs.readFileSync(file);
  bytes[18] = 2;
  bytes[19] = 2;
  fs.writeFileSync(file, bytes);
}

/** Creates packages with these sources in the `node_modules` of the folder. */
function installPackages(folder, sources) {
  for (const [name, source] of Object.entries(sources)) {
    const home = path.join(folder, "node_modules", name);
    fs.mkdirSync(home, { recursive: true });
    fs.writeFileSync(path.join(home, "index.js"), source);
  }
}

module.exports = {
  BETTER_SQLITE3,
  CONNECT_SQLITE3,
  HOUR,
  asFile,
  betterRow,
  connectRow,
  connectSession,
  encryptedFile,
  giveLog,
  installPackages,
  makeDatabase,
  writeFiles,
};
