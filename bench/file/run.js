"use strict";

const path = require("node:path");
const { allocatedBytes } = require("../disk.js");
const { withChildren } = require("../spawn.js");
const { rotated } = require("../stats.js");
const { BEFORE, NAMES, OURS, STORES, directoryOf, sizeOf } = require("./stores.js");

const CHILD = path.join(__dirname, "child.js");

const withChild = (use) => withChildren(1, use, CHILD);

/** The context of all stages: where the stores are, and how many sessions each has. */
class Run {
  constructor(plan, directory, missing, progress) {
    this.plan = plan;
    this.directory = directory;
    this.progress = (step, detail) => progress(`file, ${step}`, detail);
    this.idsFile = path.join(directory, "ids");
    const isThere = (name) => !(STORES[name].package in missing) && (name !== BEFORE || plan.before);
    this.present = NAMES.filter(isThere);
    this.stores = this.present.filter((name) => !STORES[name].isFloor);
    /** Our store, and the older version if it is given. */
    this.versions = [OURS, BEFORE].filter(isThere);
  }

  /** Returns the arguments with which a child opens or creates a store. */
  argsOf(store) {
    const from = store === BEFORE ? this.plan.before : undefined;
    const size = sizeOf(store, this.plan.fileSize);
    return { store, from, size, directory: this.directory, idsFile: this.idsFile };
  }

  bytesPerSession(store) {
    return allocatedBytes(directoryOf(store, this.directory)) / this.argsOf(store).size;
  }

  /**
   * Opens each store in its own process, or in several, and calls `use` with a function that returns the process of a
   * store.
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
   * Measures group by group, and rotates the order of the stores in each round. Rounds before the first are for the
   * compiler. Adds the results of `measure` to the `rounds` of each row.
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
