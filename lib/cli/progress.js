"use strict";

const show = require("./show.js");

const REDRAW_EVERY = 100;
const BAR = 24;
const CLEAR = "\r\x1b[K";

/** A progress line at the bottom of a terminal. */
class Progress {
  #terminal;
  #title;
  #unit;
  #isShown = false;
  #drawnAt = 0;

  /** @param {((done: number) => string) | null} unit Formats an amount. `null` to show only the percentage. */
  constructor(terminal, title, unit) {
    this.#terminal = terminal;
    this.#title = title;
    this.#unit = unit;
    this.#draw(title);
  }

  /** @param {number} [total] Omitted if it is unknown. */
  at(done, total) {
    if (Date.now() - this.#drawnAt < REDRAW_EVERY) return;
    this.#draw(total > 0 ? this.#share(Math.min(done, total), total) : `${this.#title}  ${this.#unit(done)}`);
  }

  clear() {
    if (this.#isShown) this.#terminal.write(CLEAR);
    this.#isShown = false;
  }

  #share(done, total) {
    const full = Math.floor((done / total) * BAR);
    const percent = String(Math.floor((done / total) * 100)).padStart(3);
    const bar = `${"#".repeat(full)}${".".repeat(BAR - full)}`;
    const amount = this.#unit ? `  ${this.#unit(done)} of ${this.#unit(total)}` : "";
    return `${this.#title}  [${bar}] ${percent} %${amount}`;
  }

  #draw(text) {
    this.#isShown = true;
    this.#drawnAt = Date.now();
    this.#terminal.write(`${CLEAR}${text.slice(0, (this.#terminal.columns || 80) - 1)}`);
  }
}

const silent = { at() {}, clear() {} };

/** Creates a progress line if the stream is a terminal that can show it. */
function createProgress(stream, title, unit = show.number) {
  return stream.isTTY && process.env.TERM !== "dumb" ? new Progress(stream, title, unit) : silent;
}

module.exports = { createProgress, silent };
