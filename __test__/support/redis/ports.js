"use strict";

const { once } = require("node:events");
const net = require("node:net");

// Below those that the system gives to outgoing connections, one of which would be in the way of a restart.
const [FIRST, LAST] = [12_000, 31_999];

const given = new Set();

async function isFree(port) {
  const server = net.createServer();
  try {
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
  } catch {
    return false;
  }
  server.close();
  await once(server, "close");
  return true;
}

/** A port of 127.0.0.1 that nobody has. */
async function freePort() {
  for (;;) {
    const port = FIRST + Math.floor(Math.random() * (LAST - FIRST + 1));
    if (given.has(port) || !(await isFree(port))) continue;
    given.add(port);
    return port;
  }
}

module.exports = { freePort };
