"use strict";

// Kept from when this module is loaded: suites with fake timers replace the globals.
const { setImmediate, setTimeout } = require("node:timers");
const native = require("./native.js");
const { SessionStoreError, fromNative, makeError } = require("./errors.js");

// App code continues after each call: at most this many calls end before the event loop turns, so that I/O is not starved.
const MAX_ENDED_AT_ONCE = 256;

/** A call that is under way, and later its result. */
class Call {
  #resolve;
  #reject;
  #read;
  #given;
  #kind;
  #begun;
  #result;
  #error;

  constructor(resolve, reject, read, given, kind, begun) {
    this.#resolve = resolve;
    this.#reject = reject;
    this.#read = read;
    this.#given = given;
    this.#kind = kind;
    this.#begun = begun;
  }

  succeed(result) {
    this.#result = result;
    return this;
  }

  fail(error) {
    this.#error = error;
    return this;
  }

  end(metrics) {
    try {
      if (this.#error !== undefined) throw this.#error;
      const result = this.#read(this.#result, this.#given);
      if (this.#begun > 0) metrics.end(this.#kind, this.#begun);
      this.#resolve(result);
    } catch (error) {
      const failure = fromNative(error);
      if (this.#kind !== undefined && failure instanceof SessionStoreError) {
        metrics.fail(this.#kind, failure);
      }
      this.#reject(failure);
    }
  }
}

/** The calls of one store that are under way. Each is known by the ticket that its native call returned. */
class PendingCalls {
  // The addon keeps `settle`, and so this object. A strong reference from here would keep the store for ever, as the
  // addon would never see it collected.
  #store;
  // What else is kept while a call is under way: likewise weak.
  #kept;
  // The store, while a call is under way.
  #busyStore;
  #busyKept;
  #metrics;
  #calls = [];
  #ended = [];
  #isWaking = false;
  #isResting = false;
  #isEager;
  #timeout;
  #isTimed = false;
  #count = 0;
  #lastBatch = 0;

  /**
   * @param {Metrics} metrics counts the calls that have ended.
   * @param {{ isEager?: boolean }} [options] `isEager`: whether a call that is alone begins at once. Calls of a file wait
   *   for the end of the event loop's turn instead, as a commit costs much more than what is in it.
   */
  constructor(metrics, { isEager = false } = {}) {
    this.#metrics = metrics;
    this.#isEager = isEager;
  }

  /**
   * The addon calls it for each batch. The first `length` items of `done` are tickets and numbers, alternating. Numbers
   * below zero are those of reads: -1 for "not found", else `-2 - index` into `texts`.
   */
  settle = (done, length, failures, texts) => {
    if (length === 0 && failures.length === 0) return;
    this.#lastBatch = failures.length + length / 2;
    // All at once, as the addon may issue the tickets again from now on.
    for (const { ticket, code, message } of failures) {
      this.#ended.push(this.#take(ticket).fail(makeError(code, message)));
    }
    for (let at = 0; at < length; at += 2) {
      const number = done[at + 1];
      this.#ended.push(this.#take(done[at]).succeed(number >= 0 ? number : (texts[-2 - number] ?? null)));
    }
    if (!this.#isResting) this.#endSome();
  };

  /**
   * Takes the store, which was opened with `settle`.
   * @param {{ timeout?: number, kept?: object }} [options] For stores whose deadlines this class has to watch, the
   *   milliseconds that a call may take; and what calls need besides the store.
   */
  attach(store, { timeout, kept = store } = {}) {
    this.#store = new WeakRef(store);
    this.#kept = new WeakRef(kept);
    this.#timeout = timeout;
  }

  /**
   * Returns the promise of `read(result, given)`, where `result` is the number of a write, or the reply of a read or
   * `null`. The call is counted if it has a kind, and measured if it began at a time that is not 0.
   */
  add(ticket, read, given, kind, begun) {
    // First, as the addon has begun the call already: nothing that follows may lose it.
    const promise = new Promise((resolve, reject) => {
      this.#calls[ticket] = new Call(resolve, reject, read, given, kind, begun);
    });
    const isAlone = this.#count++ === 0;
    if (isAlone) {
      this.#busyStore = this.#store.deref();
      this.#busyKept = this.#kept.deref();
      if (this.#timeout !== undefined && !this.#isTimed) this.#watch(this.#timeout);
    }
    if (this.#isEager && isAlone && this.#lastBatch <= 1) {
      this.#wake();
    } else if (!this.#isWaking) {
      this.#isWaking = true;
      // All calls of this turn of the event loop begin together.
      setImmediate(this.#wake);
    }
    return promise;
  }

  /** How many calls are under way. */
  get count() {
    return this.#count;
  }

  #wake = () => {
    this.#isWaking = false;
    if (this.#busyStore === undefined) return;
    try {
      native.wake(this.#busyStore);
    } catch {
      // The store was closed, which began the calls.
    }
  };

  /** Ends the calls whose time is over, in `delay` milliseconds and as long as there are calls. */
  #watch(delay) {
    this.#isTimed = true;
    // Not to the millisecond: a timer of Node.js may come early by one.
    setTimeout(this.#expire, delay + 1).unref();
  }

  #expire = () => {
    this.#isTimed = false;
    if (this.#busyStore === undefined) return;
    try {
      this.#watch(native.expire(this.#busyStore) ?? this.#timeout);
    } catch {
      // The store was closed. `close` ends the calls that are left when its own time is over.
    }
  };

  #endSome = () => {
    this.#isResting = false;
    const ended = this.#ended;
    const some = ended.length <= MAX_ENDED_AT_ONCE ? ended : ended.splice(0, MAX_ENDED_AT_ONCE);
    if (some === ended) this.#ended = [];
    for (const call of some) call.end(this.#metrics);
    if (some.length < MAX_ENDED_AT_ONCE) return;
    this.#isResting = true;
    setImmediate(this.#endSome);
  };

  #take(ticket) {
    if (--this.#count === 0) this.#busyStore = this.#busyKept = undefined;
    const call = this.#calls[ticket];
    this.#calls[ticket] = undefined;
    return call;
  }
}

module.exports = { PendingCalls };
