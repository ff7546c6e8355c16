"use strict";

const { SessionStore, createJson, load, prolong, updateJson } = require("../session-store.js");

/**
 * The store calls that requests make. They pass JSON text, which saves work. If the app has overridden a method of the
 * store, they call that method instead.
 */
class HotCalls {
  #store;

  constructor(store) {
    this.#store = store;
  }

  /** Resolves to `read(found, given)`. `found` is a record, its text from `load`, or `null`. */
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
