"use strict";

const { EXIT, Failure, ReaderGone, reasonOf } = require("./failures.js");

const CHUNK = 1 << 16;

/** Writes lines to a stream in chunks, and waits for each one before the next. */
class Output {
  #stream;
  #interruptible;
  #text = "";

  /** @param {(work: Promise) => Promise} [interruptible] Rejects when the command must stop waiting for the reader. */
  constructor(stream, interruptible = (work) => work) {
    this.#stream = stream;
    this.#interruptible = interruptible;
    // The callback of each write reports the error.
    stream.on("error", () => {});
  }

  async line(text) {
    this.#text += `${text}\n`;
    if (this.#text.length >= CHUNK) await this.finish();
  }

  async finish() {
    const text = this.#text;
    this.#text = "";
    if (text === "") return;
    const written = new Promise((resolve, reject) => {
      this.#stream.write(text, (error) => (error ? reject(failureOf(error)) : resolve()));
    });
    await this.#interruptible(written);
  }
}

function failureOf(error) {
  if (error.code === "EPIPE" || error.code === "ERR_STREAM_DESTROYED") return new ReaderGone();
  return new Failure(EXIT.failed, `cannot write the output: ${reasonOf(error)}`);
}

module.exports = { Output };
