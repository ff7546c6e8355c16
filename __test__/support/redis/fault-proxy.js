"use strict";

const { once } = require("node:events");
const net = require("node:net");
const { freePort } = require("./ports.js");

// As many bytes wait in a slow direction. The system's buffers take more.
const MAX_WAITING = 1 << 16;

/** One direction of a connection: what goes through keeps its order, however long it takes. */
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

  /** What has not gone through by now is lost. */
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

/** A port that leads to a server, until it is told to be worse than that. */
class FaultProxy {
  #target;
  #server;
  #pairs = new Set();
  #delay = 0;
  #rate = Number.POSITIVE_INFINITY;
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

  /** From now on so many bytes a second pass there. */
  limit(rate) {
    this.#rate = rate;
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
