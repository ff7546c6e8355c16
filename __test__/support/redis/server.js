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

/** A process of `redis-server`, or another program of Redis, with a fixed port. */
class RedisServer {
  #program;
  #child;
  #exit;
  #said = [];
  #clients = new Set();

  /**
   * @param {object} settings Its configuration: `{ [name]: value | values }`.
   * @param {object} [tls] For a server that requires TLS: a client's options for `tls.connect`.
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
    // A forgotten server must not keep a test alive.
    for (const handle of [child, child.stdout, child.stderr]) handle.unref();
  }

  /** Kills it, like a power loss without losing the system's cache. */
  kill() {
    return this.#end("SIGKILL");
  }

  /** Shuts it down cleanly. */
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

  /** Stops the process (SIGSTOP), and resolves once it has stopped: it does not answer, and its connections stay. */
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

  /** Runs one command on a new connection. */
  async call(...words) {
    const client = await this.connect();
    try {
      return await client.call(...words);
    } finally {
      this.#clients.delete(client);
      client.close();
    }
  }

  /** Returns the lines of INFO, by name. */
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

/** Returns the state of the process. T means stopped. */
function stateOf(pid) {
  const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8");
  return stat[stat.lastIndexOf(")") + 2];
}

/**
 * Starts a program of Redis on a free port. Retries if another process takes that first.
 * @param {(port: number, directory: string) => object} describe Returns further options of `RedisServer`.
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

/** The settings of every test server: no files by default. */
const BASE = { save: "", "repl-diskless-sync-delay": 0, "repl-diskless-load": "on-empty-db" };

/** Flushed before each reply: acknowledged writes survive a kill. */
const DURABLE = { appendonly: "yes", appendfsync: "always" };

module.exports = { BASE, DURABLE, RedisServer, linesOf, startOnFreePort };
