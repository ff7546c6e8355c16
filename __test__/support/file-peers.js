"use strict";

// Remote-controlled peers with open stores: processes, cluster workers and threads.

const { fork } = require("node:child_process");
const cluster = require("node:cluster");
const { once } = require("node:events");
const path = require("node:path");
const { Worker } = require("node:worker_threads");
const { FileStore } = require("../..");

const PEER = path.join(__dirname, "file-peer.js");

/** Controls a peer. Each command returns a promise. */
class Peer {
  #waiting = new Map();
  #last = 0;

  constructor({ send, source, stop, kill }) {
    this.send = send;
    this.stop = stop;
    this.kill = kill;
    this.ready = new Promise((resolve) => this.#waiting.set(0, { resolve }));
    source.on("message", ({ number, value, error }) => {
      const { resolve, reject } = this.#waiting.get(number);
      this.#waiting.delete(number);
      if (error) reject(Object.assign(new Error(error.message), { code: error.code }));
      else resolve(value);
    });
  }

  #tell(command, ...args) {
    const number = ++this.#last;
    return new Promise((resolve, reject) => {
      this.#waiting.set(number, { resolve, reject });
      this.send({ number, command, args });
    });
  }

  /** Opens a store, at a given time if there is one. Returns its methods, and methods for many concurrent calls. */
  async open(options, moment) {
    const store = await this.#tell("open", options, moment);
    const methods = [
      "create",
      "get",
      "update",
      "touch",
      "delete",
      "getByUser",
      "deleteByUser",
      "size",
      "stats",
      "close",
    ];
    const call = (method) => [method, (...args) => this.#tell("call", store, method, ...args)];
    return {
      ...Object.fromEntries(methods.map(call)),
      callAll: (...args) => this.#tell("callAll", store, ...args),
      idsOf: () => this.#tell("idsOf", store),
    };
  }
}

async function startProcess(options) {
  const child = fork(PEER, options);
  const stop = async () => {
    child.disconnect();
    await once(child, "exit");
  };
  const kill = async () => {
    const hasEnded = child.exitCode !== null || child.signalCode !== null;
    child.kill("SIGKILL");
    if (!hasEnded) await once(child, "exit");
  };
  const peer = new Peer({ send: (message) => child.send(message), source: child, stop, kill });
  await peer.ready;
  return peer;
}

async function startClusterWorker() {
  cluster.setupPrimary({ exec: PEER });
  const worker = cluster.fork();
  const stop = async () => {
    worker.disconnect();
    await once(worker, "exit");
  };
  const peer = new Peer({ send: (message) => worker.send(message), source: worker, stop });
  await peer.ready;
  return peer;
}

async function startThread() {
  const worker = new Worker(PEER);
  const stop = () => worker.terminate();
  const peer = new Peer({ send: (message) => worker.postMessage(message), source: worker, stop });
  await peer.ready;
  return peer;
}

/** This thread as a peer. */
const here = { open: async (options) => new FileStore(options), stop: async () => {} };

/** Returns a time in the near future at which all peers start. */
const soon = () => Date.now() + 20;

module.exports = { here, soon, startClusterWorker, startProcess, startThread };
