"use strict";

const { wrongUsage } = require("../failures.js");
const show = require("../show.js");
const { findDriverInApp } = require("./app-packages.js");
const { ConnectSessions } = require("./connect-sessions.js");
const { entryOf } = require("./fault.js");
const { readServerUrl } = require("./server-url.js");

// The default of connect-pg-simple.
const DEFAULT_TABLE = "session";

const ACCEPTED = {
  schemes: ["postgres", "postgresql"],
  example: "postgres://user@127.0.0.1:5432/database",
};
// Rows per query. Few, because a session may be large.
const PAGE = 100;
const CONNECT_TIMEOUT = 10_000;
const [NO_TABLE, NO_COLUMN] = ["42P01", "42703"];

/** Opens the table of connect-pg-simple. */
async function open(task) {
  const sessions = new ConnectSessions(task.options);
  const server = readServerUrl(task, ACCEPTED);
  const table = await SessionTable.open(task, server);
  const total = await table.count();
  return { noun: "row", total, entries: entriesOf() };

  async function* entriesOf() {
    let read = 0;
    for await (const { sid, sess, expire } of table.rows()) {
      const entry = await entryOf(`row ${show.shortId(String(sid))}`, () =>
        sessions.read(sid, sess, () => expire),
      );
      yield { ...entry, read: ++read };
    }
  }
}

class SessionTable {
  #query;
  #name;

  constructor(query, name) {
    this.#query = query;
    this.#name = name;
  }

  /** Throws if it is not a table of connect-pg-simple. */
  static async open(task, server) {
    const client = await connect(task, server);
    const query = async (sql, ...values) => {
      const { rows } = await server.attempt(client.query(sql, values));
      return rows;
    };
    const { schema, table = DEFAULT_TABLE } = task.options;
    const name = [schema, table].filter((part) => part !== undefined).map(quoted);
    const sessions = new SessionTable(query, name.join("."));
    await sessions.#check(server);
    return sessions;
  }

  async #check(server) {
    try {
      await this.#query(this.#page("LIMIT 0"));
    } catch (error) {
      const { code } = error.cause ?? {};
      if (code === NO_TABLE) {
        throw wrongUsage(`${server.shown} has no table ${this.#name}${await likelyTables(this.#query)}`);
      }
      if (code === NO_COLUMN) {
        throw wrongUsage(`the table ${this.#name} lacks a column of connect-pg-simple: sid, sess or expire`);
      }
      throw error;
    }
  }

  async count() {
    const [{ total }] = await this.#query(`SELECT count(*)::float8 AS total FROM ${this.#name}`);
    return total;
  }

  /** Iterates over the rows in the order of their ids. Each page starts after the last id of the previous page. */
  async *rows() {
    const order = `ORDER BY sid LIMIT ${PAGE}`;
    let page = await this.#query(this.#page(order));
    while (page.length > 0) {
      yield* page;
      page = await this.#query(this.#page(`WHERE sid > $1 ${order}`), page.at(-1).sid);
    }
  }

  /**
   * Selects the stored text, and the end in milliseconds. The column has no time zone: the app wrote it in the server's
   * default zone, which this connection uses, too.
   */
  #page(rest) {
    const end = "(extract(epoch FROM expire::timestamptz) * 1000)::float8";
    return `SELECT sid, sess::text AS sess, ${end} AS expire FROM ${this.#name} ${rest}`;
  }
}

async function connect(task, server) {
  const Client = findDriverInApp({ pg: (pg) => pg.Client }, "connect-pg-simple");
  return server.attempt(start());

  async function start() {
    const client = new Client({ connectionString: server.url, connectionTimeoutMillis: CONNECT_TIMEOUT });
    // The pending query reports the error.
    client.on("error", () => {});
    task.defer(() => client.end());
    await client.connect();
    return client;
  }
}

/** Returns a hint with tables that may be meant. */
async function likelyTables(query) {
  const found = await query(
    "SELECT table_schema AS schema, table_name AS name FROM information_schema.columns WHERE column_name = 'sess' LIMIT 5",
  );
  const options = found.map(({ schema, name }) => `--schema ${schema} --table ${name}`);
  return options.length > 0 ? `; what may be meant is ${options.join(", or ")}` : "";
}

const quoted = (name) => `"${name.replaceAll('"', '""')}"`;

module.exports = { reads: "url", options: ["schema", "table"], open };
