"use strict";

const { randomBytes } = require("node:crypto");
const { performance } = require("node:perf_hooks");

const MINUTE = 60 * 1000;
const KEPT_FOR = 60 * MINUTE;
const YOUNG_FOR = 10 * MINUTE;
const MOST_OF_A_PART = 1 << 16;
const MOST_PARTS = 16;

/**
 * The ids that were added within the last hour, at most the newest million.
 *
 * It keeps 64 bits of a hash of each: a string would keep the request header alive that it is a slice of. Old ids go a
 * part at a time, and no part ever grows, so that no call takes long.
 */
class KnownIds {
  #now;
  // The youngest first.
  #parts = [];
  #seeds = new Int32Array(new Uint8Array(randomBytes(8)).buffer);

  constructor({ now = () => performance.now() } = {}) {
    this.#now = now;
  }

  add(id) {
    const now = this.#now();
    const [high, low] = this.#hash(id);
    this.#partFor(now).add(high, low, now);
  }

  has(id) {
    const [high, low] = this.#hash(id);
    const kept = this.#now() - KEPT_FOR;
    return this.#parts.some((part) => part.until > kept && part.has(high, low));
  }

  #partFor(now) {
    const [young] = this.#parts;
    if (young?.size < MOST_OF_A_PART && now - young.since < YOUNG_FOR) return young;
    const kept = this.#parts.filter(({ until }) => until > now - KEPT_FOR);
    this.#parts = [new Part(now), ...kept.slice(0, MOST_PARTS - 1)];
    return this.#parts[0];
  }

  /** Two whole numbers of 32 bits. Seeded, so that nobody can make ids that collide. */
  #hash(id) {
    let [a, b] = this.#seeds;
    for (let at = 0; at < id.length; at++) {
      const code = id.charCodeAt(at);
      a = Math.imul(rotate(a ^ code, 13), 0x9e3779b1);
      b = Math.imul(rotate(b ^ code, 17), 0x85ebca6b);
    }
    return [mix(a ^ (b >>> 3)), mix(b ^ (a << 7))];
  }
}

const rotate = (number, bits) => (number << bits) | (number >>> (32 - bits));

/** Each bit of a number over all bits of another. */
function mix(number) {
  let mixed = Math.imul(number ^ (number >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}

/** A set of pairs of numbers in an open table, which is never more than half full. */
class Part {
  size = 0;
  #pairs = new Int32Array(4 * MOST_OF_A_PART);

  constructor(since) {
    this.since = since;
    this.until = since;
  }

  has(high, low) {
    return this.#pairs[this.#placeOf(high, low || 1)] !== 0;
  }

  add(high, low, now) {
    this.until = now;
    const place = this.#placeOf(high, low || 1);
    if (this.#pairs[place] !== 0) return;
    // Never 0, which marks what is free.
    this.#pairs[place] = low || 1;
    this.#pairs[place + 1] = high;
    this.size++;
  }

  /** Where the pair is, or would be. */
  #placeOf(high, low) {
    const pairs = this.#pairs;
    const mask = pairs.length - 1;
    let place = (high << 1) & mask;
    while (pairs[place] !== 0 && (pairs[place] !== low || pairs[place + 1] !== high))
      place = (place + 2) & mask;
    return place;
  }
}

module.exports = { KnownIds };
