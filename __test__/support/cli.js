"use strict";

// Runs the command line tool like a shell: in a separate process, without our variables.

const { spawn, spawnSync } = require("node:child_process");
const { createHash } = require("node:crypto");
const { once } = require("node:events");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { FileStore } = require("../..");

const BIN = path.join(__dirname, "../../bin/native-store.js");
// Node.js may hang at its exit while V8 optimizes a function on another thread (nodejs/node#54918).
const TOOL = ["--no-concurrent-recompilation", BIN];
const HOUR = 3_600_000;

const later = (millis = HOUR) => new Date(Date.now() + millis).toISOString();

/** A session of FluidAuth's shape that lives for an hour. */
const session = (sessionId, userId = "ann", fields = {}) => ({
  sessionId,
  expires: later(),
  userId,
  ...fields,
});

const asLines = (sessions) => sessions.map((each) => `${JSON.stringify(each)}\n`).join("");

/** A directory for one test, in which the store is `./sessions`. */
class Bench {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), "native-store-cli-"));
  storePath = this.in("sessions");
  #stores = [];

  in(...names) {
    return path.join(this.directory, ...names);
  }

  /** Opens a store in this process. */
  open(options) {
    const store = new FileStore({ path: this.storePath, sweepInterval: 0, ...options });
    this.#stores.push(store);
    return store;
  }

  /** Makes a closed store with these sessions. */
  async fill(sessions, options) {
    const store = this.open(options);
    await Promise.all(sessions.map((each) => store.create(each)));
    await store.close();
  }

  /** Returns a value that changes when the sessions do. */
  digest() {
    return createHash("sha256")
      .update(fs.readFileSync(this.in("sessions", "data.mdb")))
      .digest("hex");
  }

  start(args, { env, ...options } = {}) {
    const clean = Object.entries(process.env).filter(([name]) => !name.startsWith("NATIVE_STORE_"));
    return spawn(process.execPath, [...TOOL, ...args], {
      ...options,
      cwd: this.directory,
      env: { ...Object.fromEntries(clean), ...env },
      // A failing test is more useful than a hanging one.
      timeout: 120_000,
      killSignal: "SIGKILL",
    });
  }

  async run(args, { input = "", ...options } = {}) {
    const child = this.start(args, options);
    // The process may end without reading it.
    child.stdin.on("error", () => {});
    child.stdin.end(input);
    return finish(child);
  }

  /** Returns the terminal output of a run with the typed `input`. Both streams go to the terminal. */
  runInTerminal(args, env = {}, input = "") {
    const words = [process.execPath, ...TOOL, ...args].map((word) => `'${word.replaceAll("'", "'\\''")}'`);
    const { status, stdout } = spawnSync("script", ["-qec", words.join(" "), "/dev/null"], {
      cwd: this.directory,
      env: { ...process.env, TERM: "xterm", SHELL: "/bin/sh", ...env },
      input,
      encoding: "utf8",
    });
    return { code: status, screen: stdout };
  }

  async cleanUp() {
    await Promise.all(this.#stores.map((store) => store.close()));
    fs.rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Returns how a run ended, and its output. */
async function finish(child) {
  const texts = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"]) {
    child[name].setEncoding("utf8").on("data", (text) => {
      texts[name] += text;
    });
  }
  const [code, signal] = await once(child, "close");
  return { code, signal, ...texts };
}

const linesOf = (text) => text.split("\n").slice(0, -1);

const hasTerminals = () => /util-linux/.test(spawnSync("script", ["--version"], { encoding: "utf8" }).stdout);

module.exports = { Bench, asLines, finish, hasTerminals, later, linesOf, session };
