"use strict";

// Opens and calls stores for another process or thread, controlled by messages: see `file-peers.js`.

const { parentPort } = require("node:worker_threads");
const { FileStore, RedisStore } = require("../..");

const port = parentPort ?? process;
const send = (message) => (parentPort ? parentPort.postMessage(message) : process.send(message));
const stores = [];

/** Lets all peers start together. */
function waitUntil(moment) {
  while (Date.now() < moment);
}

const commands = {
  open(options, moment) {
    waitUntil(moment);
    const Store = options.path === undefined ? RedisStore : FileStore;
    return stores.push(new Store(options)) - 1;
  },

  call(store, method, ...args) {
    return stores[store][method](...args);
  },

  /** Calls a method concurrently with each of these arguments. Returns the error codes, or `null`. */
  async callAll(store, method, list, moment) {
    waitUntil(moment);
    const results = await Promise.allSettled(list.map((argument) => stores[store][method](argument)));
    return results.map(({ reason }) => reason?.code ?? null);
  },

  async idsOf(store) {
    const ids = [];
    for await (const id of stores[store].ids()) ids.push(id);
    return ids;
  },
};

port.on("message", async ({ number, command, args }) => {
  try {
    send({ number, value: await commands[command](...args) });
  } catch ({ code, message }) {
    send({ number, error: { code, message } });
  }
});
send({ number: 0 });
