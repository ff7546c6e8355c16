"use strict";

const { spawn } = require("node:child_process");
const { once } = require("node:events");
const path = require("node:path");
const { EXIT, Failure } = require("./failures.js");

/**
 * A process that keeps root's privileges when this one drops them. It renames the output once that is complete, or
 * removes it, also if this process is killed. It reads nothing from the store.
 */
class Keeper {
  #child;
  #end;
  #reason = "";

  constructor(partial, destination) {
    this.#child = spawn(process.execPath, [path.join(__dirname, "keeper-process.js"), partial, destination], {
      stdio: ["pipe", "ignore", "pipe"],
    });
    this.#end = once(this.#child, "close");
    // `end` reports the error to its caller.
    this.#end.catch(() => {});
    this.#child.stdin.on("error", () => {});
    this.#child.stderr.setEncoding("utf8").on("data", (text) => {
      this.#reason += text;
    });
  }

  async keep() {
    this.#child.stdin.end("keep");
    const [code] = await this.#end;
    if (code !== 0) throw new Failure(EXIT.failed, this.#reason.trim() || "cannot write the output");
  }

  /** Removes the output, unless it was kept. */
  async discard() {
    this.#child.stdin.end();
    await this.#end.catch(() => {});
  }
}

module.exports = { Keeper };
