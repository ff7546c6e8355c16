"use strict";

const { once } = require("node:events");
const net = require("node:net");

// Below the ephemeral ports: an outgoing connection on the same port would prevent a restart.
const [FIRST, LAST] = [12_000, 31_999];

// The offset of the cluster bus port. Redis 6.2 supports no other.
const BUS = 10_000;

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

/** Returns a free port of 127.0.0.1. */
const freePort = () => choose(LAST, (port) => [port]);

/** The same for a node of a cluster. */
const freeNodePort = () => choose(LAST - BUS, (port) => [port, port + BUS]);

async function choose(last, needed) {
  for (;;) {
    const ports = needed(FIRST + Math.floor(Math.random() * (last - FIRST + 1)));
    const areFree = await Promise.all(ports.map((port) => !given.has(port) && isFree(port)));
    // A concurrent call may have taken one of them.
    if (!areFree.every(Boolean) || ports.some((port) => given.has(port))) continue;
    for (const port of ports) given.add(port);
    return ports[0];
  }
}

module.exports = { freeNodePort, freePort };
