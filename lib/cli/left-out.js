"use strict";

const { EXIT, Failure } = require("./failures.js");
const show = require("./show.js");

const MOST_NAMES = 3;

/** Collects the unreadable entries for a report at the end: their number by reason, and the first few names. */
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
