"use strict";

const { SessionStoreError } = require("../errors.js");

// Calls of one session that may wait at once.
const MAX_WAITING = 256;

// The store did not answer. What waited for such a call has used up its own time.
const IS_AWAY = new Set(["ERR_STORE_TIMEOUT", "ERR_STORE_UNAVAILABLE"]);

/**
 * Keeps the order of the calls of one session. A store orders its own calls, but some of a ConnectStore have two steps:
 * they read first and write later. What was begun after such a call starts once it has ended, so that it sees it. If the
 * store did not answer that call, those that waited fail as well: otherwise their deadlines would add up.
 */
class Turns {
  // By session: `last`, what its next call waits for, and how many calls wait. `last` never rejects. It resolves to the
  // error of a store that did not answer.
  #lines = new Map();
  #all;
  #hasTwoSteps = false;

  /** Whether a call of the session would have to wait. */
  isBusy(sid) {
    return this.#all !== undefined || (this.#lines.size > 0 && this.#lines.has(sid));
  }

  /** Starts a read, at once or after the calls of two steps that were begun before it. */
  read(sid, call) {
    if (!this.isBusy(sid)) return call();
    return this.#wait(sid, this.#before(sid), call);
  }

  /** Starts a write in the same way. It calls `twoSteps`, before it first waits, if it has two steps. */
  write(sid, call) {
    if (!this.isBusy(sid)) {
      const running = this.#begin(call);
      if (this.#hasTwoSteps) this.#append(sid, awayOf(running));
      return running;
    }
    let end;
    const before = this.#before(sid);
    const running = this.#wait(sid, before, () => {
      const begun = this.#begin(call);
      if (this.#hasTwoSteps) end = awayOf(begun);
      return begun;
    });
    // What comes next waits until this has started, or, if it has two steps, until it has ended.
    this.#append(
      sid,
      before.then((away) => away ?? end),
    );
    return running;
  }

  /** Says that the call which is starting has two steps. */
  twoSteps() {
    this.#hasTwoSteps = true;
  }

  /**
   * Starts a call that concerns all sessions, after those that were begun before it. Later calls wait until it calls
   * `release`, at the latest until it ends.
   */
  async writeAll(call) {
    let release;
    const released = new Promise((resolve) => {
      release = () => resolve();
    });
    const before = this.idle();
    const running = before === undefined ? call(release) : before.then(() => call(release));
    const all = Promise.all([this.#all, Promise.race([released, awayOf(running)])]).then(firstOf);
    this.#all = all;
    all.then(() => {
      if (this.#all === all) this.#all = undefined;
    });
    return running;
  }

  /** Resolves when the calls of single sessions that were begun before have started or ended; `undefined` if they have. */
  idle() {
    if (this.#lines.size === 0) return undefined;
    return Promise.all(Array.from(this.#lines.values(), ({ last }) => last));
  }

  #before(sid) {
    return Promise.all([this.#all, this.#lines.get(sid)?.last]).then(firstOf);
  }

  /** Starts a call. Then `#hasTwoSteps` says whether that one has two steps. */
  #begin(call) {
    this.#hasTwoSteps = false;
    return call();
  }

  #append(sid, last) {
    const line = this.#lines.get(sid) ?? { waiting: 0 };
    line.last = last;
    this.#lines.set(sid, line);
    last.then(() => {
      if (line.last === last) this.#lines.delete(sid);
    });
  }

  async #wait(sid, before, call) {
    const line = this.#lines.get(sid) ?? { waiting: 0 };
    if (line.waiting >= MAX_WAITING) {
      const message = `the store is busy: ${MAX_WAITING} calls of this session wait for each other`;
      throw new SessionStoreError("ERR_STORE_BUSY", message);
    }
    line.waiting++;
    // Not with `await`, which would start calls a microtask later than `append` expects.
    return before.then((away) => {
      line.waiting--;
      if (away === undefined) return call();
      const message = `an earlier call of the session, for which this one waited, failed: ${away.message}`;
      throw new SessionStoreError(away.code, message, { cause: away });
    });
  }
}

const firstOf = (errors) => errors.find((error) => error !== undefined);

/** Resolves when a call has ended: to its error if the store did not answer. */
const awayOf = (running) =>
  running.then(
    () => undefined,
    (error) => (IS_AWAY.has(error?.code) ? error : undefined),
  );

module.exports = { Turns };
