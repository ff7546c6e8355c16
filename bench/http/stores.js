"use strict";

const { FileStore, MemoryStore } = require("../..");
const { MapStore } = require("../map-store.js");

/** The compared stores, ours first. `open` takes the store's own directory. */
const STORES = {
  file: { label: "ours, FileStore", open: (directory) => new FileStore({ path: directory }) },
  memory: { label: "ours, MemoryStore", open: () => new MemoryStore() },
  map: { label: "FluidAuth-like Map", open: () => new MapStore() },
};

const NAMES = Object.keys(STORES);
const labelOf = (name) => STORES[name].label;
const openStore = (name, directory) => STORES[name].open(directory);

module.exports = { NAMES, labelOf, openStore };
