"use strict";

const { wrongUsage } = require("../failures.js");
const { ConnectSessions } = require("./connect-sessions.js");
const { entryOf } = require("./fault.js");
const { SqliteTable } = require("./sqlite-table.js");

const DEFAULT_TABLE = "sessions";

/** The tables of the packages that keep sessions in SQLite, and when a row ends. */
const layouts = {
  "connect-sqlite3": {
    columns: ["sid", "expired", "sess"],
    endOf: ({ expired }) => expired,
  },
  "better-sqlite3-session-store": {
    columns: ["sid", "sess", "expire"],
    endOf: ({ expire }) => timeOf(expire),
  },
};

/** Returns a source for `--from` that is a table in a database. */
const storeOf = (from, options) => ({ reads: "file", options, open: (task) => open(task, from) });

async function open(task, from) {
  const { operand: file, options } = task;
  const { columns, endOf } = layouts[from];
  const sessions = new ConnectSessions(options);
  const table = await SqliteTable.open(task, options.table ?? DEFAULT_TABLE);
  checkColumns(file, from, await table.columns(file));
  const total = await table.count();
  return { noun: "row", total, entries: entriesOf() };

  async function* entriesOf() {
    let read = 0;
    for await (const row of table.rows(columns)) {
      const entry = await entryOf(`row ${row.rowid}`, () =>
        sessions.read(row.sid, row.sess, () => endOf(row)),
      );
      yield { ...entry, read: ++read };
    }
  }
}

function checkColumns(file, from, found) {
  const fits = ({ columns }) => columns.every((column) => found.includes(column));
  if (fits(layouts[from])) return;
  const other = Object.keys(layouts).find((name) => fits(layouts[name]));
  const hint = other ? `; that is --from ${other}` : "";
  const expected = layouts[from].columns.join(", ");
  throw wrongUsage(
    `the table of ${file} has the columns ${found.join(", ")}, and that of ${from} has ${expected}${hint}`,
  );
}

/** Parses a time. Without a time zone SQLite means UTC, but JavaScript the zone of the machine. */
function timeOf(text) {
  if (typeof text !== "string") return undefined;
  const hasZone = /(z|[+-]\d\d:?\d\d)$/i.test(text);
  return Date.parse(hasZone ? text : `${text.replace(" ", "T")}Z`);
}

module.exports = {
  connectSqlite3: storeOf("connect-sqlite3", ["table"]),
  betterSqlite3SessionStore: storeOf("better-sqlite3-session-store", []),
};
