"use strict";

/** Lets requests wait, each under a key, and lets others wait for their arrival. */
class Gate {
  #places = new Map();

  #at(key) {
    if (!this.#places.has(key)) this.#places.set(key, { reached: promised(), opened: promised() });
    return this.#places.get(key);
  }

  /** Resolves when the gate is opened. */
  wait(key) {
    const { reached, opened } = this.#at(key);
    reached.resolve();
    return opened.promise;
  }

  /** Resolves when a request waits. */
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
