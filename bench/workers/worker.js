"use strict";

const { parentPort, workerData } = require("node:worker_threads");
const { MemoryStore } = require("../..");
const { Ids } = require("../sessions.js");

const SAMPLE = 40_000;
/** Gets between two readings of the clock. */
const STRIDE = 1000;

const store = new MemoryStore({ name: workerData.name });
const sample = Ids.ofShared(workerData.ids).sample(SAMPLE);

/** Gets a second. */
async function getFor(seconds) {
  const start = performance.now();
  let gets = 0;
  let took = 0;
  while (took < 1000 * seconds) {
    for (const end = gets + STRIDE; gets < end; gets++) {
      if ((await store.get(sample.at(gets % SAMPLE))) === null) throw new Error("a session was not found");
    }
    took = performance.now() - start;
  }
  return (1000 * gets) / took;
}

parentPort.on("message", async ({ seconds }) => parentPort.postMessage(await getFor(seconds)));
parentPort.postMessage("ready");
