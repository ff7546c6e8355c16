"use strict";

const { once } = require("node:events");
const net = require("node:net");
const { freePort } = require("./ports.js");

/** One direction of a connection: what goes through keeps its order, however long it takes. */
class Pipe {
  #to;
  #waiting = [];
  #timer;

  constructor(to) {
    this.#to = to;
  }

  write(bytes, delay) {
    if (delay === 0 && this.#waiting.length === 0) return this.#to.write(bytes);
    this.#waiting.push({ bytes, due: performance.now() + delay });
    this.#timer ??= setTimeout(this.#writeDue, delay);
  }

  /** What has not gone through by now is lost. */
  close() {
    clearTimeout(this.#timer);
    this.#waiting = [];
  }

  #writeDue = () => {
    this.#timer = undefined;
    while (this.#waiting[0]?.due <= performance.now()) this.#to.write(this.#waiting.shift().bytes);
    if (this.#waiting.length === 0) return;
    this.#timer = setTimeout(this.#writeDue, Math.max(1, this.#waiting[0].due - performance.now()));
  };
}

/** A port that leads to a server, until it is told to be worse than that. */
class FaultProxy {
  #target;
  #server;
  #pairs = new Set();
  #delay = 0;
  #isDark = false;
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

  /** Of the next answer that is as long, only so many bytes arrive; then the connection is gone. */
  truncate(bytes) {
    this.#remaining = bytes;
  }

  /** Cuts all connections; new ones are taken. */
  drop() {
    for (const { client, server } of this.#pairs) {
      client.destroy();
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
    for (const pair of this.#pairs) pair.isDark = true;
  }

  /**
   * As in the beginning, for new connections. Those of the dark stay open and dark, as when a router has forgotten
   * them: nobody tells either end.
   */
  async heal() {
    this.#delay = 0;
    this.#remaining = Number.POSITIVE_INFINITY;
    this.#isDark = false;
    if (!this.#server.listening) await this.listen(this.port);
  }

  async close() {
    if (this.#server.listening) await this.refuse();
  }

  #join(client) {
    this.accepted++;
    const server = net.connect({ port: this.#target.port, host: "127.0.0.1" });
    const pair = { client, server, isDark: this.#isDark };
    const [there, back] = [new Pipe(server), new Pipe(client)];
    this.#pairs.add(pair);
    const end = () => {
      this.#pairs.delete(pair);
      there.close();
      back.close();
      client.destroy();
      server.destroy();
    };
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on("error", end);
      socket.on("close", end);
    }
    client.on("data", (bytes) => {
      if (!pair.isDark) there.write(bytes, this.#delay);
    });
    server.on("data", (bytes) => {
      if (pair.isDark) return;
      if (bytes.length < this.#remaining) return back.write(bytes, this.#delay);
      const part = bytes.subarray(0, this.#remaining);
      this.#remaining = Number.POSITIVE_INFINITY;
      // It ends once that is through.
      client.write(part, end);
    });
  }
}

/** A proxy before a server. */
async function startProxy(target) {
  const proxy = new FaultProxy(target);
  await proxy.listen(await freePort());
  return proxy;
}

module.exports = { startProxy };
