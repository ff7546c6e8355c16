"use strict";

// A minimal Redis client for tests. It is independent of the tested code.

const { once } = require("node:events");
const net = require("node:net");
const tls = require("node:tls");

class RedisError extends Error {}

/** Parses the reply at `at`: `[reply, end]`, or `undefined` if it is incomplete. */
function parse(bytes, at) {
  const end = bytes.indexOf("\r\n", at);
  if (end < 0) return undefined;
  const line = bytes.toString("utf8", at + 1, end);
  const next = end + 2;
  switch (bytes[at]) {
    case 0x2b: // +
      return [line, next];
    case 0x2d: // -
      return [new RedisError(line), next];
    case 0x3a: // :
      return [Number(line), next];
    case 0x24: // $
      return parseText(bytes, Number(line), next);
    case 0x2a: // *
      return parseList(bytes, Number(line), next);
    default:
      throw new Error(`a reply of an unknown type: ${bytes[at]}`);
  }
}

function parseText(bytes, length, at) {
  if (length < 0) return [null, at];
  const end = at + length;
  return bytes.length < end + 2 ? undefined : [bytes.toString("utf8", at, end), end + 2];
}

function parseList(bytes, length, at) {
  if (length < 0) return [null, at];
  const list = [];
  let next = at;
  while (list.length < length) {
    const item = parse(bytes, next);
    if (item === undefined) return undefined;
    list.push(item[0]);
    next = item[1];
  }
  return [list, next];
}

const encode = (words) =>
  `*${words.length}\r\n${words.map((word) => `$${Buffer.byteLength(String(word))}\r\n${word}\r\n`).join("")}`;

/** A connection to one server. `call` rejects with the server's errors, and with the connection's. */
class Client {
  #socket;
  #bytes = Buffer.alloc(0);
  #waiting = [];
  #failure;
  /** Receives published messages. */
  onMessage = () => {};

  /** @param {object} to `{ port }`, and with TLS `{ port, tls: options }`. */
  static async connect({ port, tls: secure }) {
    const socket = secure
      ? tls.connect({ port, host: "127.0.0.1", ...secure })
      : net.connect({ port, host: "127.0.0.1" });
    await once(socket, secure ? "secureConnect" : "connect");
    return new Client(socket);
  }

  constructor(socket) {
    this.#socket = socket;
    socket.on("data", (bytes) => this.#take(bytes));
    socket.on("error", (error) => this.#fail(error));
    socket.on("close", () => this.#fail(new Error("the connection is closed")));
  }

  call(...words) {
    if (this.#failure) return Promise.reject(this.#failure);
    this.#socket.write(encode(words));
    return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
  }

  close() {
    this.#socket.destroy();
  }

  #take(bytes) {
    this.#bytes = this.#bytes.length > 0 ? Buffer.concat([this.#bytes, bytes]) : bytes;
    let at = 0;
    for (;;) {
      const parsed = at < this.#bytes.length ? parse(this.#bytes, at) : undefined;
      if (parsed === undefined) break;
      at = parsed[1];
      this.#settle(parsed[0]);
    }
    this.#bytes = this.#bytes.subarray(at);
  }

  #settle(reply) {
    if (Array.isArray(reply) && (reply[0] === "message" || reply[0] === "pmessage"))
      return this.onMessage(reply);
    const { resolve, reject } = this.#waiting.shift();
    if (reply instanceof RedisError) reject(reply);
    else resolve(reply);
  }

  #fail(error) {
    this.#failure ??= error;
    for (const { reject } of this.#waiting.splice(0)) reject(this.#failure);
  }
}

module.exports = { Client, RedisError };
