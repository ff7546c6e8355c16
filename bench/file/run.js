"use strict";

const path = require("node:path");
const { allocatedBytes } = require("../disk.js");
const { withChildren } = require("../spawn.js");
const { rotated } = require("../stats.js");
const { BEFORE, NAMES, OURS, STORES, directoryOf, sizeOf } = require("./stores.js");

const CHILD = path.join(__dirname, "child.js");

const withChild = (use) => withChildren(1, use, CHILD);

/** What all the stages have: where the stores are and how many sessions each has. */
class Run {
  constructor(plan, directory, missing, progress) {
    this.plan = plan;
    this.directory = directory;
    this.progress = (step, detail) => progress(`file, ${step}`, detail);
    this.idsFile = path.join(directory, "ids");
    const isThere = (name) => !(STORES[name].package in missing) && (name !== BEFORE || plan.before);
    this.present = NAMES.filter(isThere);
    this.stores = this.present.filter((name) => !STORES[name].isFloor);
    /** Our store, and that of the older version where there is one. */
    this.versions = [OURS, BEFORE].filter(isThere);
  }

  /** What a child needs to open a store, or to make it. */
  argsOf(store) {
    const from = store === BEFORE ? this.plan.before : undefined;
    const size = sizeOf(store, this.plan.fileSize);
    return { store, from, size, directory: this.directory, idsFile: this.idsFile };
  }

  bytesPerSession(store) {
    return allocatedBytes(directoryOf(store, this.directory)) / this.argsOf(store).size;
  }

  /**
   * Opens each of the stores in a process of its own, or in several, and calls `use` with a function that returns the
   * process of a store.
   */
  withOpened(stores, use, processes = 1) {
    const open = async (...children) => {
      const childOf = (store, at = 0) => children[stores.indexOf(store) * processes + at];
      for (const store of stores) {
        this.progress("opening for the calls", `: ${store}`);
        for (let at = 0; at < processes; at++) await childOf(store, at).call("open", this.argsOf(store));
      }
      return use(childOf);
    };
    return withChildren(stores.length * processes, open, CHILD);
  }

  /**
   * Group by group, and in each another store first in each round. The rounds before the first are for the compiler.
   * Adds what `measure` resolves to for a row to its `rounds`.
   */
  async inRounds(title, total, groups, measure) {
    for (let round = -this.plan.warmUpRounds; round < total; round++) {
      this.progress(title, `: round ${round + 1} of ${total}`);
      for (const row of groups.flatMap((group) => rotated(group, round))) {
        const value = await measure(row);
        if (round >= 0) row.rounds.push(value);
      }
    }
  }
}

module.exports = { CHILD, Run, withChild };
