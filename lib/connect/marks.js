"use strict";

class Given {
  constructor(object) {
    // biome-ignore lint/correctness/noConstructorReturn: `this` of what extends it is any object
    return object;
  }
}

/**
 * What is known of objects of others, in a private field of theirs: nobody sees it. An entry of a WeakMap would cost a
 * session several times as much, most of it when it is collected.
 */
class Marked extends Given {
  #mark;

  constructor(object, mark) {
    super(object);
    this.#mark = mark;
  }

  static get(object) {
    return #mark in object ? object.#mark : undefined;
  }

  /** Of an object that is frozen nothing is known. */
  static set(object, mark) {
    if (#mark in object) object.#mark = mark;
    else if (Object.isExtensible(object)) new Marked(object, mark);
  }
}

module.exports = { Marked };
