"use strict";

const fs = require("node:fs");
const { parentPort, workerData: file } = require("node:worker_threads");

const log = fs.openSync(file, "a");

parentPort.on("message", (text) => {
  fs.writeSync(log, text);
  fs.fdatasyncSync(log);
  parentPort.postMessage(null);
});
