"use strict";

const { once } = require("node:events");
const net = require("node:net");
const { freePort } = require("./ports.js");

// The maximum bytes that wait in a slow direction. The system buffers more.
const MAX_WAITING = 1 << 16;

/** One direction of a connection. It keeps the order of the data at any delay. */
class Pipe {
  #from;
  #to;
  #waiting = [];
  #bytes = 0;
  #freeAt = 0;
  #timer;

  constructor(from, to) {
    this.#from = from;
    this.#to = to;
  }

  /** `rate` in bytes per second. */
  write(bytes, delay, rate) {
    if (delay === 0 && rate === Number.POSITIVE_INFINITY && this.#waiting.length === 0)
      return this.#to.write(bytes);
    const now = performance.now();
    this.#freeAt = Math.max(now, this.#freeAt) + (1000 * bytes.length) / rate;
    this.#waiting.push({ bytes, due: this.#freeAt + delay });
    this.#bytes += bytes.length;
    if (this.#bytes > MAX_WAITING && rate !== Number.POSITIVE_INFINITY) this.#from.pause();
    this.#timer ??= setTimeout(this.#writeDue, this.#waiting[0].due - now);
  }

  /** Drops all data that was not forwarded yet. */
  close() {
    clearTimeout(this.#timer);
    this.#waiting = [];
  }

  #writeDue = () => {
    this.#timer = undefined;
    while (this.#waiting[0]?.due <= performance.now()) {
      const { bytes } = this.#waiting.shift();
      this.#bytes -= bytes.length;
      this.#to.write(bytes);
    }
    if (this.#bytes <= MAX_WAITING) this.#from.resume();
    if (this.#waiting.length === 0) return;
    this.#timer = setTimeout(this.#writeDue, Math.max(1, this.#waiting[0].due - performance.now()));
  };
}

/** A port that forwards to a server, and can inject faults. */
class FaultProxy {
  #target;
  #server;
  #pairs = new Set();
  #delay = 0;
  #rate = Number.POSITIVE_INFINITY;
  #isDark = false;
  #remaining = Number.POSITIVE_INFINITY;
  /** The number of accepted connections. */
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

  /** Delays all data from now on, in each direction. */
  delay(millis) {
    this.#delay = millis;
  }

  /** Limits the bytes per second to the server from now on. */
  limit(rate) {
    this.#rate = rate;
  }

  /** Truncates the next reply that is at least this long, and closes the connection. */
  truncate(bytes) {
    this.#remaining = bytes;
  }

  /** Cuts all connections. New ones are accepted. */
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

  /** Blackhole mode: keeps the connections, accepts new ones, and forwards nothing. */
  goDark() {
    this.#isDark = true;
    for (const pair of this.#pairs) pair.isDark = true;
  }

  /**
   * Restores forwarding for new connections. Connections from blackhole mode stay open without forwarding, as when a
   * router has dropped their state.
   */
  async heal() {
    this.#delay = 0;
    this.#rate = Number.POSITIVE_INFINITY;
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
    const [there, back] = [new Pipe(client, server), new Pipe(server, client)];
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
      if (!pair.isDark) there.write(bytes, this.#delay, this.#rate);
    });
    server.on("data", (bytes) => {
      if (pair.isDark) return;
      if (bytes.length < this.#remaining) return back.write(bytes, this.#delay, Number.POSITIVE_INFINITY);
      const part = bytes.subarray(0, this.#remaining);
      this.#remaining = Number.POSITIVE_INFINITY;
      // End once that is forwarded.
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
