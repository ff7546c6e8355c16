"use strict";

const { randomBytes } = require("node:crypto");
const { readFileSync, writeFileSync } = require("node:fs");

const ID_BYTES = 18;
const ID_CHARS = 2 * ID_BYTES;
const USERS_FROM = 10_000_000;

/**
 * Session ids in FluidAuth's form. They are kept as bytes, so that each read returns a new string without a cached
 * hash, like decrypting a cookie.
 */
class Ids {
  #text;
  #numbers;

  /** `numbers`: the numbers of the ids at their origin, if they differ from the order here. */
  constructor(text, numbers) {
    this.#text = text;
    this.#numbers = numbers;
  }

  static random(count) {
    return new Ids(Buffer.from(randomBytes(count * ID_BYTES).toString("hex"), "latin1"));
  }

  static readFrom(file) {
    return new Ids(readFileSync(file));
  }

  static ofShared(memory) {
    return new Ids(Buffer.from(memory));
  }

  /** Returns a copy for `ofShared` in other threads. */
  toShared() {
    const memory = new SharedArrayBuffer(this.#text.length);
    this.#text.copy(Buffer.from(memory));
    return memory;
  }

  writeTo(file) {
    writeFileSync(file, this.#text);
  }

  get length() {
    return this.#text.length / ID_CHARS;
  }

  at(index) {
    return this.#text.latin1Slice(index * ID_CHARS, (index + 1) * ID_CHARS);
  }

  /** Returns the number of an id at the origin of a `sample`. */
  numberAt(index) {
    return this.#numbers === undefined ? index : this.#numbers[index];
  }

  /** Returns a range of the ids without a copy. */
  slice(from, to = this.length) {
    return new Ids(this.#text.subarray(from * ID_CHARS, to * ID_CHARS));
  }

  concat(other) {
    return new Ids(Buffer.concat([this.#text, other.#text]));
  }

  *[Symbol.iterator]() {
    for (let index = 0; index < this.length; index++) yield this.at(index);
  }

  /** Returns a random sample of the first ids, contiguous in memory: reading it causes no cache misses. */
  sample(count, first = this.length) {
    const text = Buffer.allocUnsafe(count * ID_CHARS);
    const numbers = new Uint32Array(count);
    for (let taken = 0; taken < count; taken++) {
      const index = Math.floor(Math.random() * first);
      numbers[taken] = index;
      this.#text.copy(text, taken * ID_CHARS, index * ID_CHARS, (index + 1) * ID_CHARS);
    }
    return new Ids(text, numbers);
  }
}

/** Returns the user of a session, different for each number. */
const userOf = (number) => String(USERS_FROM + number);

/** An expiry after the end of any run, different for each number. */
const START = Date.now();
const farOff = (number) => START + 3_600_000 + number;

const WAVE = 1000;

/** Creates sessions, many at a time, because some stores need a turn of the event loop to answer. */
async function fill(peer, ids, options = {}) {
  const {
    from = 0,
    to = ids.length,
    firstNumber = 0,
    expiresOf = farOff,
    dataOf = () => undefined,
  } = options;
  for (let start = from; start < to; start += WAVE) {
    const wave = [];
    for (let index = start; index < Math.min(start + WAVE, to); index++) {
      const number = firstNumber + index;
      wave.push(peer.create(ids.at(index), userOf(number), expiresOf(number), dataOf()));
    }
    await Promise.all(wave);
  }
}

module.exports = { Ids, userOf, farOff, fill };
