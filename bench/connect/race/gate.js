"use strict";

/** Where requests wait, each under a key, and where others wait for them to come. */
class Gate {
  #places = new Map();

  #at(key) {
    if (!this.#places.has(key)) this.#places.set(key, { reached: promised(), opened: promised() });
    return this.#places.get(key);
  }

  /** Resolves when it is opened. */
  wait(key) {
    const { reached, opened } = this.#at(key);
    reached.resolve();
    return opened.promise;
  }

  /** Resolves when somebody waits. */
  reached(key) {
    return this.#at(key).reached.promise;
  }

  open(key) {
    this.#at(key).opened.resolve();
    this.#places.delete(key);
  }
}

function promised() {
  let resolve;
  const promise = new Promise((resolver) => {
    resolve = resolver;
  });
  return { promise, resolve };
}

module.exports = { Gate };
