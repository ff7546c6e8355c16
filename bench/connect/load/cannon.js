"use strict";

// The process that loads the servers, one at a time.
const { once } = require("node:events");
const { setTimeout: sleep } = require("node:timers/promises");
const autocannon = require("autocannon");
const { serve } = require("../../serve.js");
const { quantile } = require("../../stats.js");
const { stayOn } = require("../cores.js");

// The interval at which autocannon checks whether it is done, in milliseconds.
const TICK = 50;
const LONGEST = 60; // seconds

/** By the address of a server: the cookies of its sessions. */
const cookies = new Map();

const shoot = (address, path, options) => autocannon({ url: address + path, sampleInt: TICK, ...options });

/** Waits for the end of a shot. Throws unless every request succeeded. */
async function ended(shot, path) {
  const { errors, non2xx } = await shot;
  if (errors + non2xx > 0) throw new Error(`${path}: ${errors} errors, ${non2xx} responses without success`);
}

/** Creates the sessions by logging in. */
async function login({ address, sessions, connections }) {
  const made = [];
  const onResponse = (_status, _body, _context, headers) => made.push(headers["Set-Cookie"].split(";", 1)[0]);
  const options = { connections, amount: sessions, requests: [{ onResponse }] };
  await ended(shoot(address, "/login", options), "/login");
  cookies.set(address, made);
}

/**
 * Distributes the cookies over the connections, each from a random start, so that a slow store does not get the same
 * few.
 */
function withCookies(address, connections) {
  const all = cookies.get(address);
  const first = Math.floor(Math.random() * all.length);
  let connected = 0;
  return (client) => {
    const own = [];
    for (let at = connected++; at < all.length; at += connections) {
      own.push({ headers: { cookie: all[(first + at) % all.length] } });
    }
    client.setRequests(own);
  };
}

const NEEDS_SESSION = new Set(["/read", "/change"]);

const setupOf = (address, path, connections) =>
  NEEDS_SESSION.has(path) ? { setupClient: withCookies(address, connections) } : {};

/** Makes one request with each session, or a few more. */
async function visit({ address, path, connections }) {
  const amount = Math.ceil(cookies.get(address).length / connections) * connections;
  const options = { connections, amount, ...setupOf(address, path, connections) };
  await ended(shoot(address, path, options), path);
}

/** Asks the server for its usage so far: `{ cpu, at, requests }`, two times in milliseconds and a number. */
const usageOf = async (address) => (await fetch(`${address}/usage`)).json();

/**
 * Returns `{ perSecond, p99, serverCpu, serverBusy, cannonBusy }`: p99 in milliseconds, the server's CPU time per
 * request in microseconds, and the share of a core that each process used, with all its threads.
 */
async function load({ address, path, connections, seconds, warmUp }) {
  const options = { connections, duration: LONGEST, ...setupOf(address, path, connections) };
  const shot = shoot(address, path, options);
  await once(shot, "start");
  // The connections are being made, and an idle process is slow at first.
  await sleep(1000 * warmUp);
  const before = await usageOf(address);
  const times = [];
  const start = performance.now();
  const cpu = process.cpuUsage();
  shot.on("response", (_client, _status, _bytes, millis) => times.push(millis));
  await sleep(1000 * seconds);
  const took = performance.now() - start;
  const { user, system } = process.cpuUsage(cpu);
  const measured = { perSecond: (1000 * times.length) / took, p99: quantile(times, 0.99) };
  const after = await usageOf(address);
  shot.stop();
  await ended(shot, path);
  return {
    ...measured,
    serverCpu: (1000 * (after.cpu - before.cpu)) / (after.requests - before.requests),
    serverBusy: (after.cpu - before.cpu) / (after.at - before.at),
    cannonBusy: (user + system) / 1000 / took,
  };
}

serve({ stayOn, login, visit, load });
