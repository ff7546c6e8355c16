"use strict";

// A process that ends sessions on request, and reports when each has ended.

const { RedisStore } = require("../../..");

let store;

process.on("message", async (message) => {
  if (store === undefined) {
    store = new RedisStore({ sweepInterval: 0, ...message.options, prefix: message.prefix });
    await store.get("nobody");
    return process.send("open");
  }
  await store.delete(message);
  return process.send(message);
});
