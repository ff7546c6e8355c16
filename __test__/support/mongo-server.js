"use strict";

// A minimal MongoDB server for connect-mongo and its driver, in memory, with the real protocol. A real server is
// available neither in Debian nor on npm.

const { once } = require("node:events");
const net = require("node:net");
const { BSON } = require("mongodb");

const HEADER = 16;
const OP_REPLY = 1;
const OP_QUERY = 2004;
const OP_MSG = 2013;
const HELLO = {
  helloOk: true,
  ismaster: true,
  isWritablePrimary: true,
  maxBsonObjectSize: 2 ** 24,
  maxMessageSizeBytes: 48_000_000,
  maxWriteBatchSize: 100_000,
  minWireVersion: 0,
  maxWireVersion: 21,
  readOnly: false,
};

class MongoServer {
  /** The received commands, by name. */
  commands = [];
  /** Databases with collections, which have documents by id. */
  databases = new Map();
  #server = net.createServer((socket) => this.#serve(socket));
  #sockets = new Set();
  #cursors = new Map();
  #failure;
  #holding;

  async start() {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    this.port = this.#server.address().port;
    this.url = `mongodb://127.0.0.1:${this.port}/app`;
    return this;
  }

  stop() {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.close();
  }

  /** Makes every command of that name fail. */
  failOn(name, message) {
    this.#failure = { name, answer: { ok: 0, errmsg: message, code: 13, codeName: "Unauthorized" } };
  }

  /** Stops answering commands of that name. The first one resolves `held`. */
  holdOn(name) {
    this.held = new Promise((resolve) => {
      this.#holding = { name, resolve };
    });
  }

  clear() {
    this.#holding = undefined;
    this.databases.clear();
    this.commands = [];
    this.#failure = undefined;
  }

  collection(name = "sessions", database = "app") {
    const collections = this.databases.get(database) ?? new Map();
    this.databases.set(database, collections);
    if (!collections.has(name)) collections.set(name, new Map());
    return collections.get(name);
  }

  #serve(socket) {
    this.#sockets.add(socket);
    let bytes = Buffer.alloc(0);
    socket.on("error", () => {});
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("data", (data) => {
      bytes = Buffer.concat([bytes, data]);
      while (bytes.length >= HEADER && bytes.length >= bytes.readInt32LE(0)) {
        const length = bytes.readInt32LE(0);
        this.#take(bytes.subarray(0, length), socket);
        bytes = bytes.subarray(length);
      }
    });
  }

  #take(message, socket) {
    const id = message.readInt32LE(4);
    const code = message.readInt32LE(12);
    const command = code === OP_QUERY ? queryOf(message) : commandOf(message);
    if (Object.keys(command)[0] === this.#holding?.name) return this.#holding.resolve();
    const answer = BSON.serialize(this.#answer(command));
    const head =
      code === OP_QUERY
        ? // Flags, the cursor of 8 bytes, where it begins, and the number of documents.
          Buffer.from(Int32Array.of(8, 0, 0, 0, 1).buffer)
        : // Flags, and a section of one document.
          Buffer.alloc(5);
    const header = Int32Array.of(
      HEADER + head.length + answer.length,
      0,
      id,
      code === OP_QUERY ? OP_REPLY : OP_MSG,
    );
    socket.write(Buffer.concat([Buffer.from(header.buffer), head, answer]));
  }

  #answer(command) {
    const [name] = Object.keys(command);
    this.commands.push(name);
    if (this.#failure?.name === name) return this.#failure.answer;
    const answer = this.#answers[name.toLowerCase()]?.(command);
    if (answer === undefined) return { ok: 0, errmsg: `no such command: '${name}'`, code: 59 };
    return { ...answer, ok: 1 };
  }

  #answers = {
    hello: () => ({ ...HELLO, localTime: new Date() }),
    ismaster: () => ({ ...HELLO, localTime: new Date() }),
    ping: () => ({}),
    endsessions: () => ({}),
    killcursors: () => ({}),
    createindexes: ({ createIndexes, $db }) => {
      this.collection(createIndexes, $db);
      return {};
    },
    listcollections: ({ $db }) => {
      const names = [...(this.databases.get($db)?.keys() ?? [])];
      const firstBatch = names.map((name) => ({ name, type: "collection" }));
      return { cursor: { id: BSON.Long.ZERO, ns: `${$db}.$cmd.listCollections`, firstBatch } };
    },
    count: ({ count, $db }) => ({ n: this.collection(count, $db).size }),
    update: ({ update, updates, $db }) => {
      const documents = this.collection(update, $db);
      const [{ q, u, upsert }] = updates;
      const old = documents.get(q._id);
      if (!old && !upsert) return { n: 0, nModified: 0 };
      documents.set(q._id, { _id: q._id, ...old, ...u.$set, ...(!old && u.$setOnInsert) });
      return old ? { n: 1, nModified: 1 } : { n: 1, nModified: 0, upserted: [{ index: 0, _id: q._id }] };
    },
    delete: ({ delete: name, deletes, $db }) => {
      const [{ q }] = deletes;
      return { n: this.collection(name, $db).delete(q._id) ? 1 : 0 };
    },
    find: ({ find, filter, batchSize, projection, $db }) => {
      const all = [...this.collection(find, $db).values()];
      const found = filter?._id === undefined ? all : all.filter(({ _id }) => _id === filter._id);
      const names = projection && ["_id", ...Object.keys(projection)];
      const pick = (document) =>
        Object.fromEntries(Object.entries(document).filter(([name]) => names.includes(name)));
      return this.#batch(names ? found.map(pick) : found, batchSize ?? 101, `${$db}.${find}`, "firstBatch");
    },
    getmore: ({ getMore, batchSize, collection, $db }) =>
      this.#batch(this.#cursors.get(String(getMore)), batchSize ?? 1000, `${$db}.${collection}`, "nextBatch"),
  };

  #batch(documents, size, ns, name) {
    const rest = documents.slice(size);
    const id = rest.length > 0 ? BSON.Long.fromNumber(this.#cursors.size + 1) : BSON.Long.ZERO;
    this.#cursors.set(String(id), rest);
    return { cursor: { id, ns, [name]: documents.slice(0, size) } };
  }
}

/** The document after the flags, the name of a collection and two numbers. */
function queryOf(message) {
  const name = HEADER + 4;
  return BSON.deserialize(message.subarray(message.indexOf(0, name) + 1 + 8));
}

/** Returns the document of a message, including its document sequences. */
function commandOf(message) {
  const command = {};
  let at = HEADER + 4;
  while (at < message.length) {
    const kind = message[at++];
    const end = at + message.readInt32LE(at);
    if (kind === 0) Object.assign(command, BSON.deserialize(message.subarray(at, end)));
    else {
      const nameEnd = message.indexOf(0, at + 4);
      const documents = [];
      for (let from = nameEnd + 1; from < end; from += message.readInt32LE(from)) {
        documents.push(BSON.deserialize(message.subarray(from, from + message.readInt32LE(from))));
      }
      command[message.toString("utf8", at + 4, nameEnd)] = documents;
    }
    at = end;
  }
  return command;
}

const startMongo = () => new MongoServer().start();

module.exports = { startMongo };
