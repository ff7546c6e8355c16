"use strict";

const { openPeer } = require("../peers.js");
const { Ids, farOff, fill, userOf } = require("../sessions.js");

const AT_ONCE = 100;
const WARM_UP = 2000;
// Short, as a machine's speed may change from one second to the next.
const CALLS = { id: 40_000, get: 40_000, "get, 100 at once": 40_000, touch: 20_000, create: 8000 };
const SLOW_SHARE = 1 / 4;

let peer;
let ids;
let clock = 0;

async function open({ store, size }) {
  peer = openPeer(store);
  ids = Ids.random(size);
  await fill(peer, ids);
  global.gc();
}

/** The nanoseconds that a call takes, once all are through. */
async function nanoseconds(loop, calls) {
  const start = performance.now();
  await loop();
  return ((performance.now() - start) * 1e6) / calls;
}

/** What every other figure includes: making the id. */
async function readIds(sample) {
  let chars = 0;
  for (let i = 0; i < sample.length; i++) chars += sample.at(i).length;
  return chars > 0 ? sample.length : 0;
}

async function getOneByOne(sample) {
  let hits = 0;
  for (let i = 0; i < sample.length; i++) {
    if ((await peer.get(sample.at(i))) !== null) hits++;
  }
  return hits;
}

async function getAtOnce(sample) {
  let hits = 0;
  for (let i = 0; i < sample.length; i += AT_ONCE) {
    const wave = [];
    for (let j = i; j < i + AT_ONCE; j++) wave.push(peer.get(sample.at(j)));
    for (const session of await Promise.all(wave)) if (session !== null) hits++;
  }
  return hits;
}

async function touchOneByOne(sample) {
  for (let i = 0; i < sample.length; i++) await peer.touch(sample.at(i), farOff(clock++));
  return sample.length;
}

async function createOneByOne(fresh) {
  for (let i = 0; i < fresh.length; i++) await peer.create(fresh.at(i), userOf(i), farOff(i));
}

async function measureSample(loop, calls) {
  await loop(ids.sample(WARM_UP));
  const sample = ids.sample(calls);
  global.gc({ type: "minor" });
  let found;
  const each = await nanoseconds(async () => {
    found = await loop(sample);
  }, calls);
  if (found !== calls) throw new Error(`${calls - found} of ${calls} sessions were not found`);
  return each;
}

/** In batches that hardly change the number of sessions, and that are deleted untimed. */
async function measureCreate(calls) {
  const batch = Math.min(calls, ids.length / 10);
  let total = 0;
  for (let done = -batch; done < calls; done += batch) {
    const fresh = Ids.random(batch);
    global.gc({ type: "minor" });
    const each = await nanoseconds(() => createOneByOne(fresh), batch);
    if (done >= 0) total += each * batch;
    await Promise.all(Array.from({ length: batch }, (_, i) => peer.delete(fresh.at(i))));
  }
  global.gc();
  return total / calls;
}

const MEASURES = {
  id: (calls) => measureSample(readIds, calls),
  get: (calls) => measureSample(getOneByOne, calls),
  "get, 100 at once": (calls) => measureSample(getAtOnce, calls),
  touch: (calls) => measureSample(touchOneByOne, calls),
  create: measureCreate,
};

const round = ({ op }) => MEASURES[op](CALLS[op] * (peer.isSlow ? SLOW_SHARE : 1));

module.exports = { OPS: Object.keys(MEASURES), open, round };
