"use strict";

const { spawn } = require("node:child_process");
const { once } = require("node:events");
const fs = require("node:fs");
const path = require("node:path");
const { Client } = require("./client.js");
const { newDirectory, watch } = require("./guard.js");
const { freePort } = require("./ports.js");
const { until } = require("./until.js");

const READY = /Ready to accept connections|\+monitor master/;
const TAKEN = /Address already in use/;
const KEPT_LINES = 20;

const settingsText = (settings) =>
  Object.entries(settings)
    .flatMap(([name, values]) => [values].flat().map((value) => `${name} ${value === "" ? '""' : value}\n`))
    .join("");

/** One process of `redis-server`, or another program of Redis, on a port of its own that it keeps. */
class RedisServer {
  #program;
  #child;
  #exit;
  #said = [];
  #clients = new Set();

  /**
   * @param {object} settings Of its configuration: `{ [name]: value | values }`.
   * @param {object} [tls] Where it serves with TLS alone: what a client needs, as `tls.connect` takes it.
   */
  constructor({ program = "redis-server", port, directory, settings, tls, login }) {
    this.#program = program;
    this.port = port;
    this.directory = directory;
    this.tls = tls;
    this.login = login;
    this.file = path.join(directory, "server.conf");
    fs.writeFileSync(this.file, settingsText({ port: tls ? 0 : port, bind: "127.0.0.1", ...settings }));
  }

  get url() {
    return `${this.tls ? "rediss" : "redis"}://127.0.0.1:${this.port}`;
  }

  get pid() {
    return this.#child.pid;
  }

  /** Starts it, for the first time or again, and resolves once it accepts connections. */
  async start() {
    const child = spawn(this.#program, [this.file], {
      cwd: this.directory,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    this.#exit = once(child, "exit");
    this.#said = [];
    if (child.pid !== undefined) watch(child);
    const ready = new Promise((resolve) => {
      const hear = (text) => {
        this.#said = [...this.#said, ...String(text).split("\n")].slice(-KEPT_LINES);
        if (READY.test(text)) resolve();
      };
      child.stdout.setEncoding("utf8").on("data", hear);
      child.stderr.setEncoding("utf8").on("data", hear);
    });
    const ended = this.#exit.then(() => {
      throw new Error(`${this.#program} ended:\n${this.#said.join("\n")}`);
    });
    await Promise.race([ready, ended]);
    ended.catch(() => {});
    // A test that forgets one must not hang.
    for (const handle of [child, child.stdout, child.stderr]) handle.unref();
  }

  /** Ends it as a loss of power ends it, save for what the system has in its cache. */
  kill() {
    return this.#end("SIGKILL");
  }

  /** Lets it end in its own way. */
  stop() {
    return this.#end("SIGTERM");
  }

  async #end(signal) {
    const child = this.#child;
    for (const client of this.#clients) client.close();
    this.#clients.clear();
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.ref();
    child.kill(signal);
    await this.#exit;
  }

  /** Resolves once it has really stopped: it answers nobody, and its connections stay. */
  async pause() {
    this.#child.kill("SIGSTOP");
    await until(() => stateOf(this.pid) === "T", "the server stops");
  }

  resume() {
    this.#child.kill("SIGCONT");
  }

  /** A connection that ends with the server. */
  async connect() {
    const client = await Client.connect(this);
    this.#clients.add(client);
    if (this.login) await client.call("AUTH", ...this.login);
    return client;
  }

  /** One command on a connection of its own. */
  async call(...words) {
    const client = await this.connect();
    try {
      return await client.call(...words);
    } finally {
      this.#clients.delete(client);
      client.close();
    }
  }

  /** The lines of INFO, by their names. */
  async info(section) {
    return linesOf(await this.call("INFO", section));
  }
}

const linesOf = (text) =>
  Object.fromEntries(
    text
      .split("\r\n")
      .filter((line) => line.includes(":"))
      .map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1)]),
  );

/** One letter: T is stopped. */
function stateOf(pid) {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
  return stat[stat.lastIndexOf(")") + 2];
}

/**
 * Starts a program of Redis on a free port. Another process may take that before it does, so it is tried again.
 * @param {(port: number, directory: string) => object} describe The options of `RedisServer` besides these.
 */
async function startOnFreePort(describe, findPort = freePort) {
  for (let attempt = 1; ; attempt++) {
    const directory = newDirectory();
    const port = await findPort();
    const server = new RedisServer({ port, directory, ...(await describe(port, directory)) });
    try {
      await server.start();
      return server;
    } catch (error) {
      if (attempt === 5 || !TAKEN.test(error.message)) throw error;
    }
  }
}

/** What every server of the tests has: no files but those that are asked for. */
const BASE = { save: "", "repl-diskless-sync-delay": 0, "repl-diskless-load": "on-empty-db" };

/** Flushed before each answer: what is acknowledged outlives a kill. */
const DURABLE = { appendonly: "yes", appendfsync: "always" };

module.exports = { BASE, DURABLE, RedisServer, linesOf, startOnFreePort };
