"use strict";

const { once } = require("node:events");
const net = require("node:net");
const { freePort } = require("./ports.js");

/** A port that leads to a server, until it is told to be worse than that. */
class FaultProxy {
  #target;
  #server;
  #pairs = new Set();
  #delay = 0;
  #isDark = false;
  /** Of the next answer, how many bytes come through before the connection ends. */
  #remaining = Number.POSITIVE_INFINITY;
  /** How many connections it has taken. */
  accepted = 0;

  constructor(target) {
    this.#target = target;
  }

  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }

  async listen(port) {
    this.port = port;
    this.#server = net.createServer((client) => this.#join(client));
    this.#server.unref();
    this.#server.listen(port, "127.0.0.1");
    await once(this.#server, "listening");
  }

  /** From now on whatever passes takes so much longer, there and back each. */
  delay(millis) {
    this.#delay = millis;
  }

  /** Of what comes back next, only so many bytes arrive; then the connection is gone. */
  truncate(bytes) {
    this.#remaining = bytes;
  }

  /** Cuts all connections; new ones are taken. */
  drop() {
    for (const { client, server } of this.#pairs) {
      client.resetAndDestroy();
      server.destroy();
    }
    this.#pairs.clear();
  }

  /** Cuts all connections, and refuses new ones. */
  async refuse() {
    const closed = once(this.#server, "close");
    this.#server.close();
    this.drop();
    await closed;
  }

  /** Keeps the connections, takes new ones, and lets nothing pass. */
  goDark() {
    this.#isDark = true;
  }

  /** As in the beginning. What was swallowed is lost, so that the connections of the dark end. */
  async heal() {
    this.#delay = 0;
    this.#remaining = Number.POSITIVE_INFINITY;
    if (this.#isDark) this.drop();
    this.#isDark = false;
    if (!this.#server.listening) await this.listen(this.port);
  }

  async close() {
    if (this.#server.listening) await this.refuse();
  }

  #join(client) {
    this.accepted++;
    const server = net.connect({ port: this.#target.port, host: "127.0.0.1" });
    const pair = { client, server };
    this.#pairs.add(pair);
    const end = () => {
      this.#pairs.delete(pair);
      client.destroy();
      server.destroy();
    };
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on("error", end);
      socket.on("close", end);
    }
    client.on("data", (bytes) => this.#pass(bytes, server));
    server.on("data", (bytes) => this.#answer(bytes, pair, end));
  }

  #answer(bytes, { client }, end) {
    if (this.#isDark || bytes.length < this.#remaining) return this.#pass(bytes, client);
    const part = bytes.subarray(0, this.#remaining);
    this.#remaining = Number.POSITIVE_INFINITY;
    // It ends once that is through.
    client.write(part, end);
  }

  #pass(bytes, to) {
    if (this.#isDark) return;
    if (this.#delay === 0) return to.write(bytes);
    setTimeout(() => to.writable && to.write(bytes), this.#delay);
  }
}

/** A proxy before a server. */
async function startProxy(target) {
  const proxy = new FaultProxy(target);
  await proxy.listen(await freePort());
  return proxy;
}

module.exports = { startProxy };
