"use strict";

// A process whose worker threads share one store.
const { once } = require("node:events");
const path = require("node:path");
const { Worker } = require("node:worker_threads");
const { MemoryStore } = require("../..");
const { serve } = require("../serve.js");
const { Ids, farOff, userOf } = require("../sessions.js");

const NAME = "bench";

let store;
let workers;

/** Fills a store, and starts the threads, which open it by name. */
async function open({ size, threads }) {
  store = new MemoryStore({ name: NAME });
  const ids = Ids.random(size);
  for (let number = 0; number < size; number++) {
    const expires = new Date(farOff(number)).toISOString();
    await store.create({ sessionId: ids.at(number), userId: userOf(number), expires });
  }
  const workerData = { name: NAME, ids: ids.toShared() };
  workers = Array.from(
    { length: threads },
    () => new Worker(path.join(__dirname, "worker.js"), { workerData }),
  );
  await Promise.all(workers.map((worker) => once(worker, "message")));
}

/** Measures the gets a second of all threads together. */
async function gets({ threads, seconds }) {
  const asked = workers.slice(0, threads);
  const answers = asked.map((worker) => once(worker, "message"));
  for (const worker of asked) worker.postMessage({ seconds });
  const each = await Promise.all(answers);
  return each.reduce((sum, [perSecond]) => sum + perSecond, 0);
}

serve({ open, gets });
