"use strict";

const { randomBytes } = require("node:crypto");
const { performance } = require("node:perf_hooks");

const MINUTE = 60 * 1000;
const KEPT_FOR = 60 * MINUTE;
const YOUNG_FOR = 10 * MINUTE;
const MAX_PART_SIZE = 1 << 16;
const MAX_PARTS = 16;

/**
 * A set of the ids that were added within the last hour, limited to the newest million.
 *
 * It keeps a 64-bit hash of each id: a string may be a slice of a request header, and would keep that alive. It drops
 * old ids a part at a time, and parts never grow, so no call takes long.
 */
class KnownIds {
  #now;
  // Newest first.
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
    if (young?.size < MAX_PART_SIZE && now - young.since < YOUNG_FOR) return young;
    const kept = this.#parts.filter(({ until }) => until > now - KEPT_FOR);
    this.#parts = [new Part(now), ...kept.slice(0, MAX_PARTS - 1)];
    return this.#parts[0];
  }

  /** Returns two 32-bit integers. The seed is random, so that attackers cannot choose colliding ids. */
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

/** Mixes each bit of a number into all bits of the result. */
function mix(number) {
  let mixed = Math.imul(number ^ (number >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return mixed ^ (mixed >>> 16);
}

/** A set of pairs of numbers: an open-addressing table that is at most half full. */
class Part {
  size = 0;
  #pairs = new Int32Array(4 * MAX_PART_SIZE);

  constructor(since) {
    this.since = since;
    this.until = since;
  }

  has(high, low) {
    return this.#pairs[this.#slotOf(high, low || 1)] !== 0;
  }

  add(high, low, now) {
    this.until = now;
    const slot = this.#slotOf(high, low || 1);
    if (this.#pairs[slot] !== 0) return;
    // 0 marks a free slot.
    this.#pairs[slot] = low || 1;
    this.#pairs[slot + 1] = high;
    this.size++;
  }

  /** Returns the slot of a pair, or the free slot for it. */
  #slotOf(high, low) {
    const pairs = this.#pairs;
    const mask = pairs.length - 1;
    let slot = (high << 1) & mask;
    while (pairs[slot] !== 0 && (pairs[slot] !== low || pairs[slot + 1] !== high)) slot = (slot + 2) & mask;
    return slot;
  }
}

module.exports = { KnownIds };
