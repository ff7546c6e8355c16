"use strict";

const isObject = (value) => typeof value === "object" && value !== null;

class Given {
  constructor(object) {
    // biome-ignore lint/correctness/noConstructorReturn: a subclass needs any object as its `this`
    return object;
  }
}

/**
 * Attaches a mark to any object, as an invisible private field. A WeakMap entry would cost several times as much per
 * session, mostly at garbage collection.
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
