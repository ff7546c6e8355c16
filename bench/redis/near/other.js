"use strict";

// A process that ends the sessions that it is told of, and says when that was acknowledged.
const { RedisStore } = require("../../..");

let store;

process.on("message", async (message) => {
  if (store === undefined) {
    store = new RedisStore({ sweepInterval: 0, ...message });
    await store.get("nobody");
    return process.send("open");
  }
  await store.delete(message);
  return process.send(Number(process.hrtime.bigint()) / 1e6);
});
