"use strict";

const isObject = (value) => typeof value === "object" && value !== null;

class Given {
  constructor(object) {
    // biome-ignore lint/correctness/noConstructorReturn: `this` of what extends it is any object
    return object;
  }
}

/**
 * Attaches a mark to any object, as a private field that nobody else sees. A WeakMap entry would cost several times as
 * much a session, most of it at garbage collection.
 */
class Marked extends Given {
  #mark;

  constructor(object, mark) {
    super(object);
    this.#mark = mark;
  }

  static get(object) {
    return isObject(object) && #mark in object ? object.#mark : undefined;
  }

  /** Does nothing to a frozen object. */
  static set(object, mark) {
    if (#mark in object) object.#mark = mark;
    else if (Object.isExtensible(object)) new Marked(object, mark);
  }
}

module.exports = { Marked };
