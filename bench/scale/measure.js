"use strict";

const { setTimeout: sleep } = require("node:timers/promises");
const { closedLoop } = require("../closed-loop.js");
const { costOf } = require("../file/measure/cost.js");
const { until } = require("../file/sessions.js");
const { directoryOf, openStore } = require("../file/stores.js");
const { after } = require("../gaps/watch.js");
const { Ids } = require("../sessions.js");
const { median } = require("../stats.js");
const { memoryUse } = require("./memory-use.js");
const { Sample, newSessions } = require("./sessions.js");

/** The number of sessions to read. Together they exceed the processor's caches. */
const SAMPLE = 400_000;
const ROUNDS = 20;
const CREATED_SHARE = 1 / 5;
const MAX_CREATED = 200_000;
const EXPIRED_SHARE = 1 / 10;
/** The file never shrinks, so the measurement must not make it grow much. */
const MAX_EXPIRED_IN_FILE = 100_000;
const IN_FLIGHT = 4096;
const MAX_ALONE = 200_000;
/** More than V8's young generation, so that its pages are allocated before the store. */
const WARM_UP = 200_000;

const nanoseconds = (millis, calls) => (millis / calls) * 1e6;

function warmUp(content) {
  for (const session of newSessions(WARM_UP, { content })) JSON.stringify(session);
}

/** Measures the nanoseconds of an awaited get: the median of rounds with different sessions. */
async function timeGets(store, ids) {
  const each = Math.floor(ids.length / ROUNDS);
  const rounds = [];
  for (let round = 0; round < ROUNDS; round++) {
    const some = ids.slice(round * each, (round + 1) * each);
    const start = performance.now();
    for (const id of some) {
      if ((await store.get(id)) === null) throw new Error("a session was not found");
    }
    rounds.push(nanoseconds(performance.now() - start, each));
  }
  return median(rounds);
}

/** Measures the cost of creates with `inFlight` concurrent ones, including the drain of a log. */
async function costOfCreates(store, folder, inFlight, sessions) {
  await store.drain?.();
  return costOf(folder, async () => {
    const created = await closedLoop(inFlight, sessions, (session) => store.create(session));
    await store.drain?.();
    return created;
  });
}

/** Measures the nanoseconds of a sweep per expired session. */
async function timeSweep(store, { size, content }, expired, createNs) {
  const millis = Date.now() + 1000 + (2 * expired * createNs) / 1e6;
  await closedLoop(IN_FLIGHT, newSessions(expired, { firstNumber: 2 * size, content, millis }), (session) =>
    store.create(session),
  );
  await store.drain?.();
  if (Date.now() >= millis)
    throw new Error("the sessions expired before all were there: is the machine busy?");
  await sleep(millis + 1 - Date.now());
  const before = (await store.store.stats()).expired;
  const start = performance.now();
  await store.store.clean();
  const took = performance.now() - start;
  const swept = (await store.store.stats()).expired - before;
  if (swept !== expired) throw new Error(`${swept} of ${expired} expired sessions were swept`);
  return nanoseconds(took, expired);
}

/** Measures the cost of calls on a filled store. */
async function timeCalls(store, folder, ids, { size, content }, expired) {
  // The first pass maps the pages of a file.
  await timeGets(store, ids);
  const get = await timeGets(store, ids);
  const count = Math.min(MAX_CREATED, size * CREATED_SHARE);
  const sessions = newSessions(count, { firstNumber: size, content });
  const { calls, seconds, bytes } = await costOfCreates(store, folder, IN_FLIGHT, sessions);
  const create = nanoseconds(1000 * seconds, calls);
  const sweep = await timeSweep(store, { size, content }, expired, create);
  return { get, create, written: bytes === undefined ? undefined : bytes / calls, sweep };
}

/** A MemoryStore in this process. */
async function measureMemory({ size, content }) {
  warmUp(content);
  const sample = new Sample(size, SAMPLE);
  const store = openStore({ store: "memory", directory: "" });
  const before = await memoryUse();
  await store.fill(newSessions(size, { content, keep: sample.keep }));
  const { own } = await memoryUse();
  const calls = await timeCalls(store, ".", sample.ids, { size, content }, size * EXPIRED_SHARE);
  return { bytes: (own - before.own) / size, ...calls, written: undefined };
}

/** Fills a new FileStore, and writes some of the ids to a file. */
async function fillFile({ size, content, directory, idsFile }) {
  const store = openStore({ store: "native", directory });
  const sample = new Sample(size, SAMPLE);
  const start = performance.now();
  await store.fill(newSessions(size, { content, keep: sample.keep }));
  await store.close();
  sample.ids.writeTo(idsFile);
  return (performance.now() - start) / 1000;
}

/** Measures a FileStore that another process has filled. */
async function measureFile({ size, content, directory, idsFile, seconds }) {
  warmUp(content);
  const ids = Ids.readFrom(idsFile);
  const before = await memoryUse();
  const store = openStore({ store: "native", directory });
  const folder = directoryOf("native", directory);
  const calls = await timeCalls(
    store,
    folder,
    ids,
    { size, content },
    Math.min(size * EXPIRED_SHARE, MAX_EXPIRED_IN_FILE),
  );
  const { own, mapped } = await memoryUse();
  const fresh = newSessions(MAX_ALONE, { firstNumber: 4 * size, content });
  const alone = await costOfCreates(store, folder, 1, until(after(1000 * seconds), fresh));
  await store.close();
  return {
    ...calls,
    own: own - before.own,
    mapped,
    alonePerSecond: alone.calls / alone.seconds,
    writtenAlone: alone.bytes === undefined ? undefined : alone.bytes / alone.calls,
  };
}

module.exports = { fillFile, measureFile, measureMemory };
