"use strict";

const { randomBytes } = require("node:crypto");
const fs = require("node:fs");
const path = require("node:path");
const { EXIT, Failure, reasonOf, wrongUsage } = require("./failures.js");
const { Keeper } = require("./keeper.js");
const { moveInto } = require("./move.js");

const CHUNK = 1 << 16;

/** A file that only its owner can read, and that appears once it is complete. */
class PrivateFile {
  #file;
  #partial;
  #descriptor;
  #keeper;
  #text = "";

  /**
   * @param {boolean} [options.isKept] Whether a `Keeper` has to finish it, because this process will have dropped
   * root's privileges.
   */
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

  /** Removes an unfinished file. */
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
  if (!existing.isFile()) throw wrongUsage(`${file} is not a regular file: write to standard output instead`);
  if (!isReplaced) throw wrongUsage(`${file} already exists: --force replaces it`);
}

module.exports = { PrivateFile };
