"use strict";

const { fork } = require("node:child_process");
const { once } = require("node:events");
const path = require("node:path");

const FLAGS = [
  "--expose-gc",
  // A million sessions of a store on the V8 heap come near to the default of a small machine.
  "--max-old-space-size=4096",
  // As it is in a server under load, from the beginning: growing is then no part of what is measured.
  "--min-semi-space-size=16",
];

const running = new Set();

// Registered before whatever else cleans up: what they go on writing would be left behind.
process.on("exit", () => {
  for (const child of running) child.kill("SIGKILL");
});

/** A process of its own for a store. `call` asks it for one thing at a time. */
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

/** What `use` gives, with as many children that run `script`; they end with it. */
async function withChildren(count, use, script = path.join(__dirname, "child.js")) {
  const children = Array.from({ length: count }, () => new Child(script));
  try {
    return await use(...children);
  } finally {
    await Promise.all(children.map((child) => child.close()));
  }
}

module.exports = { withChildren };
