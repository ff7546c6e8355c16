"use strict";

// One redis-server on a port of its own, for the tests of a file. Where none is installed they say what they leave out.

const { spawn, spawnSync } = require("node:child_process");
const fs = require("node:fs");
const net = require("node:net");
const os = require("node:os");
const path = require("node:path");

const isInstalled = spawnSync("redis-server", ["--version"], { stdio: "ignore" }).status === 0;

function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer().on("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

function answers(port) {
  return new Promise((resolve) => {
    const socket = net.connect(port, "127.0.0.1", () => socket.write("PING\r\n"));
    const end = (outcome) => {
      socket.destroy();
      resolve(outcome);
    };
    socket.once("data", (data) => end(data.toString().startsWith("+PONG")));
    socket.once("error", () => end(false));
  });
}

/** Starts a server, which ends with this process. */
async function startServer() {
  const port = await freePort();
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), "redis-single-"));
  const settings = { port, bind: "127.0.0.1", dir: directory, save: "", appendonly: "no" };
  const args = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, String(value)]);
  const server = spawn("redis-server", args, { stdio: "ignore" });
  const stop = () => {
    server.kill("SIGKILL");
    fs.rmSync(directory, { recursive: true, force: true });
  };
  process.once("exit", stop);
  server.unref();
  for (let tries = 0; !(await answers(port)); tries++) {
    if (tries === 200 || server.exitCode !== null) throw new Error("redis-server does not answer");
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  return { url: `redis://127.0.0.1:${port}`, port, stop };
}

let started;
let prefixes = 0;

/** The options of a store of its own on the one server of this process. */
async function newPlace() {
  started ??= startServer();
  const { url } = await started;
  return { url, prefix: `test ${++prefixes}:` };
}

module.exports = { isInstalled, newPlace, startServer };
