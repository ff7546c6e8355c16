"use strict";

const { randomBytes } = require("node:crypto");
const { Ids, farOff, userOf } = require("../sessions.js");

const CHUNK = 10_000;
const ID_CHARS = 36;
/** The JSON of a data field without its text. */
const EMPTY_FIELD = ',"data":""'.length;
const POOL = randomBytes(512 * 1024).toString("hex");

/** Returns random text. A literal would be one string for all sessions. */
function textOf(length) {
  const from = Math.floor(Math.random() * (POOL.length - length));
  return POOL.slice(from, from + length);
}

/** Returns a session of FluidAuth's three fields, with app data of `content` bytes of JSON. */
function sessionOf(sessionId, number, content, millis = farOff(number)) {
  const session = { sessionId, userId: userOf(number), expires: new Date(millis).toISOString() };
  return content === 0 ? session : { ...session, data: textOf(content - EMPTY_FIELD) };
}

/**
 * Generates new sessions, each of another user. Makes few ids at a time, because their memory does not belong to the
 * store.
 */
function* newSessions(count, { firstNumber = 0, content = 0, millis, keep = () => {} } = {}) {
  for (let made = 0; made < count; made += CHUNK) {
    const ids = Ids.random(Math.min(CHUNK, count - made));
    for (let at = 0; at < ids.length; at++) {
      const id = ids.at(at);
      keep(made + at, id);
      yield sessionOf(id, firstNumber + made + at, content, millis);
    }
  }
}

/** Keeps an evenly spread sample of ids, in memory that is allocated before the fill. */
class Sample {
  #memory;
  #text;
  #every;

  constructor(size, count) {
    this.#every = Math.ceil(size / count);
    this.#memory = new SharedArrayBuffer(Math.ceil(size / this.#every) * ID_CHARS);
    this.#text = Buffer.from(this.#memory).fill(1);
  }

  keep = (number, id) => {
    if (number % this.#every === 0) this.#text.write(id, (number / this.#every) * ID_CHARS, "latin1");
  };

  get ids() {
    return Ids.ofShared(this.#memory);
  }
}

module.exports = { Sample, newSessions };
