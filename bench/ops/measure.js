"use strict";

const { openPeer } = require("../peers.js");
const { Ids, farOff, fill, userOf } = require("../sessions.js");
const { SHAPES } = require("../shapes.js");

const AT_ONCE = 100;
const WARM_UP = 2000;
const SLOW_SHARE = 1 / 4;

let peer;
let dataOf;
let ids;
let clock = 0;

async function open({ store, shape, size }) {
  peer = openPeer(store);
  dataOf = SHAPES[shape].dataOf;
  ids = Ids.random(size);
  await fill(peer, ids, { dataOf });
  global.gc();
}

/** Measures the nanoseconds per call of a loop. */
async function nanoseconds(loop, calls) {
  const start = performance.now();
  await loop();
  return ((performance.now() - start) * 1e6) / calls;
}

/** Only makes the ids, which every other figure includes. */
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
    for (let j = i; j < Math.min(i + AT_ONCE, sample.length); j++) wave.push(peer.get(sample.at(j)));
    for (const session of await Promise.all(wave)) if (session !== null) hits++;
  }
  return hits;
}

async function touchOneByOne(sample) {
  for (let i = 0; i < sample.length; i++) await peer.touch(sample.at(i), farOff(clock++));
  return sample.length;
}

/** Each session keeps its user, as when FluidAuth extends one. */
async function updateOneByOne(sample, data) {
  for (let i = 0; i < sample.length; i++)
    await peer.update(sample.at(i), userOf(sample.numberAt(i)), farOff(clock++), data[i]);
  return sample.length;
}

async function createOneByOne(fresh, data) {
  for (let i = 0; i < fresh.length; i++) await peer.create(fresh.at(i), userOf(i), farOff(i), data[i]);
}

async function deleteOneByOne(fresh) {
  for (let i = 0; i < fresh.length; i++) await peer.delete(fresh.at(i));
}

/** Made before the measurement: an app has the data anyway. */
const dataFor = (calls) => Array.from({ length: calls }, dataOf);

async function measureSample(loop, calls, { withData = false } = {}) {
  const warmUp = Math.min(WARM_UP, calls);
  await loop(ids.sample(warmUp), withData ? dataFor(warmUp) : undefined);
  const sample = ids.sample(calls);
  const data = withData ? dataFor(calls) : undefined;
  global.gc({ type: "minor" });
  let found;
  const each = await nanoseconds(async () => {
    found = await loop(sample, data);
  }, calls);
  if (found !== calls) throw new Error(`${calls - found} of ${calls} sessions were not found`);
  return each;
}

/** Creates and deletes in small batches, which hardly change the number of sessions. */
async function measureBatches(calls) {
  const batch = Math.min(calls, ids.length / 10);
  const batches = Math.ceil(calls / batch);
  const total = { create: 0, delete: 0 };
  // Batch -1 is for the compiler.
  for (let at = -1; at < batches; at++) {
    const fresh = Ids.random(batch);
    const data = dataFor(batch);
    global.gc({ type: "minor" });
    const creating = await nanoseconds(() => createOneByOne(fresh, data), batch);
    const deleting = await nanoseconds(() => deleteOneByOne(fresh), batch);
    if (at < 0) continue;
    total.create += creating / batches;
    total.delete += deleting / batches;
  }
  global.gc();
  return total;
}

const sampled = (op, loop, options) => async (calls) => ({ [op]: await measureSample(loop, calls, options) });

/** The calls of a turn. Few, because the speed of a machine may change from one second to the next. */
const TURNS = [
  { ops: ["id"], calls: 40_000, measure: sampled("id", readIds) },
  { ops: ["get"], calls: 40_000, measure: sampled("get", getOneByOne) },
  { ops: ["get, 100 at once"], calls: 40_000, measure: sampled("get, 100 at once", getAtOnce) },
  { ops: ["touch"], calls: 20_000, measure: sampled("touch", touchOneByOne) },
  { ops: ["update"], calls: 8000, measure: sampled("update", updateOneByOne, { withData: true }) },
  { ops: ["create", "delete"], calls: 8000, measure: measureBatches },
];

/** Measures the nanoseconds per call, by name. */
function round({ turn, share }) {
  const { calls, measure } = TURNS[turn];
  return measure(calls * share * (peer.isSlow ? SLOW_SHARE : 1));
}

module.exports = { OPS_OF_TURNS: TURNS.map(({ ops }) => ops), open, round };
