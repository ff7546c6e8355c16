"use strict";

// A process that writes until it is killed: `node file-crash-writer.js '{ options, name, log, atOnce }'`.
//
// It uses its own sessions and users, and never one with a pending call, so that the result of each call is known
// beforehand.

const fs = require("node:fs");
const { FileStore } = require("../..");
const { LogWriter } = require("./file-crash-log.js");

const { options, name, log: file, atOnce } = JSON.parse(process.argv[2]);
const IDS = Array.from({ length: 120 }, (_, at) => `${name}-${at}`);
const USERS = Array.from({ length: 30 }, (_, at) => `user ${at} of ${name}`);
const SHARED = [null, "everyone", "everyone else"];
const HOUR = 3_600_000;

const pick = (list) => list[Math.floor(Math.random() * list.length)];
const nextTurn = () => new Promise(setImmediate);
const chance = (probability) => Math.random() < probability;
const inAnHour = () => new Date(Date.now() + HOUR + Math.floor(Math.random() * HOUR)).toISOString();

const log = new LogWriter(file);
const store = new FileStore(options);
/** The live sessions, by id. */
const live = new Map();
/** Ids and users of pending calls. */
const busy = new Set();

function draw(id) {
  const large = chance(0.05);
  const size = Math.floor(Math.random() * (large ? 30_000 : 1500));
  const user = pick(chance(0.8) ? USERS : SHARED);
  return { user, expires: inAnHour(), version: (live.get(id)?.version ?? 0) + 1, size };
}

const toSession = (sessionId, { user, expires, version, size }) => ({
  sessionId,
  userId: user,
  expires,
  version,
  blob: "x".repeat(size),
});

/** Returns a random call: its subject, its changes and the expected result. */
function choose() {
  if (chance(0.05)) return endUser(pick(USERS));
  const id = pick(IDS);
  const old = live.get(id);
  const next = draw(id);
  if (!old) {
    // None of these calls may bring it back.
    if (chance(0.1)) return { id, after: null, call: () => store.update(id, toSession(id, next)) };
    if (chance(0.1)) return { id, after: null, call: () => store.touch(id, next.expires), answer: false };
    return { id, after: next, call: () => store.create(toSession(id, next)) };
  }
  const kind = Math.random();
  if (kind < 0.4) return { id, after: next, call: () => store.update(id, toSession(id, next)) };
  if (kind < 0.6) {
    const { expires } = next;
    return { id, after: { ...old, expires }, call: () => store.touch(id, expires), answer: true };
  }
  if (kind < 0.7) return { id, after: null, call: () => store.touch(id, new Date(1)), answer: true };
  return { id, after: null, call: () => store.delete(id) };
}

function endUser(user) {
  const changes = [...live].filter(([, session]) => session.user === user).map(([id]) => [id, null]);
  return { user, changes, call: () => store.deleteByUser(user), answer: changes.length };
}

async function write() {
  const { id, after, user, changes = [[id, after]], call, answer } = choose();
  const concerned = user ? [user] : [live.get(id)?.user, after?.user].filter((own) => USERS.includes(own));
  const held = new Set([...changes.map(([id]) => id), ...concerned]);
  if ([...held].some((one) => busy.has(one))) return nextTurn();
  for (const one of held) busy.add(one);
  const number = log.begin(changes);
  const given = await call();
  log.end(number);
  if (given !== answer) log.fault(`${call} answered ${given}, not ${answer}`);
  for (const [id, after] of changes) {
    if (after) live.set(id, after);
    else live.delete(id);
  }
  for (const one of held) busy.delete(one);
}

async function main() {
  for (const id of IDS) {
    const session = await store.get(id);
    if (session === null) continue;
    const { userId: user, expires, version, blob } = session;
    live.set(id, { user, expires, version, size: blob.length });
  }
  fs.writeSync(1, "ready");
  const writeOn = async () => {
    for (;;) await write();
  };
  const readOn = async () => {
    for (;;) {
      await store.getByUser(pick(USERS));
      await nextTurn();
    }
  };
  await Promise.all([...Array.from({ length: atOnce }, writeOn), readOn()]);
}

main().catch((error) => log.fault(`${error.code}: ${error.message}`));
