"use strict";

const { SessionStore, createJson, load, prolong, updateJson } = require("../session-store.js");

/**
 * The calls of the adapted store that requests make, with JSON text where that saves work. A method that the app has put
 * in the place of the store's is called as it is documented.
 */
class HotCalls {
  #store;

  constructor(store) {
    this.#store = store;
  }

  /** Resolves to what `read` makes of a record or of its text, as `load` gives it, and of `given`. */
  load(id, read, given) {
    const store = this.#store;
    if (store.get === SessionStore.prototype.get) return store[load](id, read, given);
    return Promise.resolve(store.get(id)).then((record) => read(record, given));
  }

  create(json) {
    const store = this.#store;
    if (store.create === SessionStore.prototype.create) return store[createJson](json);
    return Promise.resolve(store.create(JSON.parse(json)));
  }

  update(id, json) {
    const store = this.#store;
    if (store.update === SessionStore.prototype.update) return store[updateJson](id, json);
    return Promise.resolve(store.update(id, JSON.parse(json)));
  }

  get canProlong() {
    return this.#store.touch === SessionStore.prototype.touch;
  }

  prolong(id, expires, enough) {
    return this.#store[prolong](id, expires, enough);
  }
}

module.exports = { HotCalls };
