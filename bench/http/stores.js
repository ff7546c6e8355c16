"use strict";

const { FileStore, MemoryStore } = require("../..");
const { MapStore } = require("../map-store.js");

/** The stores that are compared, ours first. `open` takes a directory that is the store's own. */
const STORES = {
  file: { label: "ours, FileStore", open: (directory) => new FileStore({ path: directory }) },
  memory: { label: "ours, MemoryStore", open: () => new MemoryStore() },
  map: { label: "FluidAuth-like Map", open: () => new MapStore() },
};

const NAMES = Object.keys(STORES);
const labelOf = (name) => STORES[name].label;
const openStore = (name, directory) => STORES[name].open(directory);

module.exports = { NAMES, labelOf, openStore };
