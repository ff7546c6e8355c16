"use strict";

const { openStore, ownerOfStore } = require("./open-store.js");
const { Output } = require("./output.js");
const { createProgress, silent } = require("./progress.js");
const { Interruption } = require("./failures.js");

/** One run of a command: its options and streams, and the cleanups to run when it ends. */
class Task {
  #abortion = new AbortController();
  #cleanups = [];
  #progress = silent;

  constructor({ options, operand, stdout, stderr }) {
    this.options = options;
    this.operand = operand;
    this.stdout = stdout;
    this.stderr = stderr;
    this.output = new Output(stdout, (work) => this.interruptible(work));
  }

  /** Aborts when the command has to stop. */
  get signal() {
    return this.#abortion.signal;
  }

  interrupt() {
    this.#abortion.abort();
  }

  throwIfInterrupted() {
    if (this.signal.aborted) throw new Interruption();
  }

  /** Returns the result of work that cannot be stopped. Rejects as soon as the command is interrupted. */
  interruptible(work) {
    return new Promise((resolve, reject) => {
      const interrupt = () => reject(new Interruption());
      if (this.signal.aborted) interrupt();
      // The listener is removed below: racing all work against one promise would retain each result.
      this.signal.addEventListener("abort", interrupt);
      const forget = () => this.signal.removeEventListener("abort", interrupt);
      Promise.resolve(work).finally(forget).then(resolve, reject);
    });
  }

  /** The user that root becomes when it opens the store: `{ uid, gid }`, or `null`. */
  get owner() {
    return ownerOfStore(this.options);
  }

  /** Opens the store. After that the task has the privileges of the store's owner, not of root. */
  openStore(how, storeOptions) {
    const store = openStore(this.options, how, storeOptions);
    this.defer(() => store.close());
    return store;
  }

  /** Runs `cleanup` when the command has ended, in reverse order. */
  defer(cleanup) {
    this.#cleanups.push(cleanup);
  }

  async cleanUp() {
    this.#progress.clear();
    while (this.#cleanups.length > 0) await this.#cleanups.pop()();
  }

  progress(title, unit) {
    if (!this.options.quiet) this.#progress = createProgress(this.stderr, title, unit);
    return this.#progress;
  }

  /** Prints lines of the answer. */
  async print(...lines) {
    this.#progress.clear();
    for (const line of lines) await this.output.line(line);
    await this.output.finish();
  }

  /** Prints a line about what was done. */
  note(line) {
    this.#progress.clear();
    if (!this.options.quiet) this.stderr.write(`${line}\n`);
  }
}

module.exports = { Task };
