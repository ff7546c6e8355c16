"use strict";

const { randomBytes } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { EXIT, Failure, reasonOf, wrongUsage } = require("./failures.js");
const { Keeper } = require("./keeper.js");
const { moveInto } = require("./move.js");

const CHUNK = 1 << 16;

/** A file that only its owner may read, and that is there whole or not at all. */
class PrivateFile {
  #file;
  #partial;
  #descriptor;
  #keeper;
  #text = "";

  /** @param {boolean} [options.isKept] Whether a `Keeper` is needed to finish it, as root's rights will be gone. */
  constructor(file, { isReplaced = false, isKept = false } = {}) {
    assertFree(file, isReplaced);
    this.#file = file;
    this.#partial = path.join(
      path.dirname(file),
      `.${path.basename(file)}.${randomBytes(4).toString("hex")}.partial`,
    );
    try {
      this.#descriptor = fs.openSync(this.#partial, "wx", 0o600);
    } catch (error) {
      throw wrongUsage(`cannot write ${file}: ${reasonOf(error)}`);
    }
    if (isKept) this.#keeper = new Keeper(this.#partial, file);
  }

  async line(text) {
    this.#text += `${text}\n`;
    if (this.#text.length >= CHUNK) this.#flush();
  }

  async finish() {
    this.#flush();
    this.#try(() => {
      fs.fsyncSync(this.#descriptor);
      this.#close();
    });
    if (this.#keeper) await this.#keeper.keep();
    else moveInto(this.#file, this.#partial);
  }

  /** Leaves nothing behind of a file that was not finished. */
  async discard() {
    this.#close();
    if (this.#keeper) await this.#keeper.discard();
    else fs.rmSync(this.#partial, { force: true });
  }

  #flush() {
    this.#try(() => fs.writeFileSync(this.#descriptor, this.#text));
    this.#text = "";
  }

  #close() {
    if (this.#descriptor !== undefined) fs.closeSync(this.#descriptor);
    this.#descriptor = undefined;
  }

  #try(write) {
    try {
      write();
    } catch (error) {
      throw new Failure(EXIT.failed, `cannot write ${this.#file}: ${reasonOf(error)}`);
    }
  }
}

function assertFree(file, isReplaced) {
  const existing = fs.lstatSync(file, { throwIfNoEntry: false });
  if (!existing) return;
  if (!existing.isFile()) throw wrongUsage(`${file} is no regular file: write to standard output instead`);
  if (!isReplaced) throw wrongUsage(`${file} is there already: --force replaces it`);
}

module.exports = { PrivateFile };
