"use strict";

const path = require("node:path");
const { Worker } = require("node:worker_threads");

const RECORD = "x".repeat(232);

/** The limit of the disk: a worker appends records to one file, and syncs all queued records together. */
class RawAppend {
  #queued = [];
  #writing = [];
  #worker;

  constructor(directory) {
    const file = path.join(directory, "log");
    this.#worker = new Worker(path.join(__dirname, "raw-append-worker.js"), { workerData: file });
    this.#worker.on("message", () => {
      for (const resolve of this.#writing) resolve();
      this.#writing = [];
      this.#write();
    });
  }

  create() {
    return new Promise((resolve) => {
      // After this turn of the event loop, so that all its creates share a sync.
      if (this.#queued.push(resolve) === 1) setImmediate(() => this.#write());
    });
  }

  #write() {
    if (this.#writing.length > 0 || this.#queued.length === 0) return;
    this.#writing = this.#queued;
    this.#queued = [];
    this.#worker.postMessage(RECORD.repeat(this.#writing.length));
  }

  async fill() {}

  async remove() {}

  async close() {
    await this.#worker.terminate();
  }
}

module.exports = RawAppend;
