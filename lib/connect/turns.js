"use strict";

const { SessionStoreError } = require("../errors.js");

const ignore = () => {};

// Calls of one session that may wait at once.
const MAX_WAITING = 256;

/**
 * Keeps the order of the calls of one session. A store orders its own calls, but some of a ConnectStore have two steps:
 * they read first and write later. What was begun after such a call starts once it has ended, so that it sees it.
 *
 * Calls of two steps run beside each other: the store keeps the order of their reads, and so of their writes.
 */
class Turns {
  // By session: what its next call has to wait for, and how many calls wait.
  #lines = new Map();
  #all;
  #hasTwoSteps = false;

  /** Whether a call of the session would have to wait. */
  isBusy(sid) {
    return this.#all !== undefined || this.#lines.has(sid);
  }

  /** Starts a read, at once or after the calls of two steps that were begun before it. */
  read(sid, call) {
    const line = this.#lines.get(sid);
    if (line === undefined && this.#all === undefined) return call();
    return this.#wait(line, () => Promise.all([this.#all, line?.last]).then(call));
  }

  /**
   * Starts a write, at once or after the calls of two steps that were begun before it. It may itself call `twoSteps`
   * before it first waits. If the caller knows that it will, `hasTwoSteps` lets it run beside others.
   */
  write(sid, call, { hasTwoSteps = false } = {}) {
    const line = this.#lines.get(sid);
    if (this.#all === undefined && (line === undefined || (hasTwoSteps && line.writes === 0))) {
      const { running, end } = this.#begin(call);
      if (end !== undefined) this.#append(sid, Promise.all([line?.last, end]));
      return running;
    }
    return this.#wait(line, () => {
      let running;
      const started = Promise.all([this.#all, line?.last]).then(() => {
        const begun = this.#begin(call);
        running = begun.running;
        return begun.end;
      });
      // What comes next waits until this has started, or, if it has two steps, until it has ended.
      const next = this.#append(sid, started);
      next.writes++;
      started.then(() => next.writes--);
      return started.then(() => running);
    });
  }

  /** Says that the call which is starting has two steps. */
  twoSteps() {
    this.#hasTwoSteps = true;
  }

  /** Starts a call that concerns all sessions, after those that were begun before it. Later calls wait for its end. */
  writeAll(call) {
    const before = this.idle();
    const running = before === undefined ? call() : before.then(call);
    const all = Promise.all([this.#all, running.then(ignore, ignore)]);
    this.#all = all;
    all.then(() => {
      if (this.#all === all) this.#all = undefined;
    });
    return running;
  }

  /** Resolves when the calls that were begun before have started or ended; `undefined` if they have. */
  idle() {
    if (this.#all === undefined && this.#lines.size === 0) return undefined;
    return Promise.all([this.#all, ...Array.from(this.#lines.values(), ({ last }) => last)]);
  }

  /** Starts a call: its promise, and if it has two steps a promise of its end that never rejects. */
  #begin(call) {
    this.#hasTwoSteps = false;
    const running = call();
    return { running, end: this.#hasTwoSteps ? running.then(ignore, ignore) : undefined };
  }

  #append(sid, last) {
    const line = this.#lines.get(sid) ?? { last, writes: 0, waiting: 0 };
    line.last = last;
    this.#lines.set(sid, line);
    last.then(() => {
      if (line.last === last && this.#lines.get(sid) === line) this.#lines.delete(sid);
    });
    return line;
  }

  /** Runs a call that has to wait, unless too many do. */
  async #wait(line, start) {
    if (line === undefined) return start();
    if (line.waiting >= MAX_WAITING) {
      const message = `the store is busy: ${MAX_WAITING} calls of this session wait for each other`;
      throw new SessionStoreError("ERR_STORE_BUSY", message);
    }
    line.waiting++;
    try {
      return await start();
    } finally {
      line.waiting--;
    }
  }
}

module.exports = { Turns };
