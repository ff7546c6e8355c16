"use strict";

const { fork } = require("node:child_process");
const { once } = require("node:events");
const path = require("node:path");

const FLAGS = [
  "--expose-gc",
  // A million sessions on the V8 heap come close to the default limit of a small machine.
  "--max-old-space-size=4096",
  // Start with the size of a server under load, so that growing is not measured.
  "--min-semi-space-size=16",
];

const running = new Set();

// Registered before other cleanups: children that still write would leave files behind.
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** A child process for a store. `call` requests one task at a time. */
class Child {
  #process;
  #answer = () => {};

  constructor(script) {
    this.#process = fork(script, { execArgv: FLAGS });
    running.add(this.#process);
    this.#process.on("message", (message) => this.#answer(message));
    this.#process.on("exit", (code, signal) => {
      running.delete(this.#process);
      this.#answer({ error: `it ended with ${signal ?? code}` });
    });
  }

  async call(task, args) {
    const answered = new Promise((resolve) => {
      this.#answer = resolve;
    });
    this.#process.send({ task, args });
    const { result, error } = await answered;
    if (error) throw new Error(`${task} ${JSON.stringify(args)}: ${error}`);
    return result;
  }

  async close() {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const exit = once(this.#process, "exit");
    this.#process.disconnect();
    await exit;
  }
}

/** Runs `use` with `count` children of `script`, and ends them afterwards. */
async function withChildren(count, use, script = path.join(__dirname, "child.js")) {
  const children = Array.from({ length: count }, () => new Child(script));
  try {
    return await use(...children);
  } finally {
    await Promise.all(children.map((child) => child.close()));
  }
}

module.exports = { withChildren };
