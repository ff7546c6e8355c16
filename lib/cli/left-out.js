"use strict";

const { EXIT, Failure } = require("./failures.js");
const show = require("./show.js");

const MOST_NAMES = 3;

/** What could not be read, told at the end: how much of it for which reason, and the first few by name. */
class LeftOut {
  count = 0;
  #noun;
  #groups = new Map();

  constructor(noun) {
    this.#noun = noun;
  }

  add(name, fault) {
    this.count++;
    const group = this.#groups.get(fault) ?? { size: 0, names: [] };
    this.#groups.set(fault, group);
    if (group.size++ < MOST_NAMES) group.names.push(name);
  }

  throwIfAny() {
    if (this.count === 0) return;
    const groups = [...this.#groups].map(
      ([fault, { size, names }]) =>
        `${show.number(size)} ${fault} (${names.join(", ")}${size > names.length ? ", …" : ""})`,
    );
    throw new Failure(EXIT.no, `left out ${show.count(this.count, this.#noun)}: ${groups.join("; ")}`);
  }
}

module.exports = { LeftOut };
