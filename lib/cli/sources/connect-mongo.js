"use strict";

const { wrongUsage } = require("../failures.js");
const show = require("../show.js");
const { findDriverInApp } = require("./app-packages.js");
const { ConnectSessions, ENCRYPTED } = require("./connect-sessions.js");
const { Fault, entryOf } = require("./fault.js");
const { readServerUrl } = require("./server-url.js");
const { endOfEndless, readTtl } = require("./ttl.js");

// The default of connect-mongo.
const DEFAULT_COLLECTION = "sessions";
const DEFAULT_TTL = 1_209_600_000;

const ACCEPTED = { schemes: ["mongodb", "mongodb+srv"], example: "mongodb://user@127.0.0.1:27017/database" };
const BATCH = 100;
const CONNECT_TIMEOUT = 10_000;

/** Opens the collection of connect-mongo. */
async function open(task) {
  const { options } = task;
  const sessions = new ConnectSessions(options);
  const ttl = readTtl(options);
  const server = readServerUrl(task, ACCEPTED);
  const collection = await openCollection(task, server);
  const total = await server.attempt(collection.estimatedDocumentCount());
  return { noun: "document", total, entries: entriesOf() };

  async function* entriesOf() {
    let read = 0;
    for await (const document of documentsOf(server, collection)) {
      const { _id: sid, session, expires, createdAt } = document;
      const entry = await entryOf(`document ${show.shortId(String(sid))}`, () =>
        sessions.read(sid, textOf(session), ({ cookie }) => endOf(expires, cookie, ttl)),
      );
      // connect-mongo stores it with the option `timestamps`.
      const created = createdAt instanceof Date ? createdAt.getTime() : undefined;
      yield { ...entry, createdAt: created, read: ++read };
    }
  }
}

/** Throws if the collection does not exist: MongoDB would return it as empty. */
async function openCollection(task, server) {
  const client = await connect(task, server);
  const { database, collection = DEFAULT_COLLECTION } = task.options;
  const db = client.db(database);
  const listed = db.listCollections({}, { nameOnly: true, authorizedCollections: true }).toArray();
  const names = (await server.attempt(listed)).map(({ name }) => name).sort();
  if (names.includes(collection)) return db.collection(collection);
  const found = names.length > 0 ? `it has ${names.join(", ")}` : "it has none that this user can read";
  throw wrongUsage(
    `the database ${db.databaseName} of ${server.shown} has no collection ${collection}: ${found}; --database and ` +
      "--collection name others",
  );
}

async function* documentsOf(server, collection) {
  const projection = { session: 1, expires: 1, createdAt: 1 };
  const cursor = collection.find({}, { projection, batchSize: BATCH });
  for (;;) {
    const document = await server.attempt(cursor.next());
    if (document === null) return;
    yield document;
  }
}

/** Returns the JSON of a session. It is stored as text, or as an object with `stringify: false`. */
function textOf(session) {
  if (typeof session !== "string") return JSON.stringify(session);
  // The output of connect-mongo's Web Crypto encryption.
  if (/^[\w+/-]{38,}=*$/.test(session)) throw new Fault(ENCRYPTED);
  return session;
}

function endOf(expires, cookie, ttl) {
  if (expires === undefined) return endOfEndless(cookie, ttl, DEFAULT_TTL);
  return expires instanceof Date ? expires.getTime() : undefined;
}

async function connect(task, server) {
  const MongoClient = findDriverInApp({ mongodb: (mongodb) => mongodb.MongoClient }, "connect-mongo");
  return server.attempt(start());

  async function start() {
    const client = new MongoClient(server.url, { serverSelectionTimeoutMS: CONNECT_TIMEOUT });
    task.defer(() => client.close());
    return client.connect();
  }
}

module.exports = { reads: "url", options: ["database", "collection", "ttl"], open };
