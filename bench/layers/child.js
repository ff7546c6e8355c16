"use strict";

const { MemoryStore } = require("../..");
const native = require("../../binding.js");
const { serve } = require("../serve.js");
const { Ids } = require("../sessions.js");
const { layersOf, sessionOf } = require("./layers.js");

/** Calls before the measurement, for the compiler. */
const WARM_UP = 2000;

let ids;
let layers;

/** Fills the stores in random order, so that reading the ids in order is random access to memory. */
async function open({ size }) {
  const store = new MemoryStore();
  const handle = native.openMemory({});
  ids = Ids.random(size);
  for (const number of shuffled(size)) {
    const session = sessionOf(ids.at(number), number);
    await store.create(session);
    native.create(handle, session.sessionId, session.userId, session.expires, true);
  }
  layers = layersOf(store, handle, native.openMemory({}));
  global.gc();
  return Object.entries(layers).flatMap(([call, ofCall]) => ofCall.map(({ text }) => ({ call, text })));
}

function shuffled(size) {
  const numbers = Uint32Array.from({ length: size }, (_, number) => number);
  for (let at = size - 1; at > 0; at--) {
    const other = Math.floor(Math.random() * (at + 1));
    [numbers[at], numbers[other]] = [numbers[other], numbers[at]];
  }
  return numbers;
}

/** Measures the nanoseconds of a call up to a layer. */
async function round({ call, text, calls }) {
  const layer = layers[call].find((layer) => layer.text === text);
  await time(layer, WARM_UP);
  return time(layer, calls);
}

async function time({ of = "there", loop, before, after }, calls) {
  const first = Math.floor(Math.random() * (ids.length - calls));
  const sample = of === "there" ? ids.slice(first, first + calls) : Ids.random(calls);
  before?.(sample, first);
  global.gc({ type: "minor" });
  const start = performance.now();
  await loop(sample, first);
  const taken = performance.now() - start;
  after?.(sample, first);
  return (taken * 1e6) / calls;
}

serve({ open, round });
