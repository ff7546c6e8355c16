"use strict";

// Import the functions at load: tests with fake timers replace the global ones.
const { setImmediate, setTimeout } = require("node:timers");
const native = require("./native.js");
const { SessionStoreError, fromNative, makeError } = require("./errors.js");

// App code runs after each call. At most this many calls complete in one turn of the event loop, so that I/O is not
// starved.
const MAX_ENDED_AT_ONCE = 256;

/** A pending call, and later its result. */
class Call {
  #resolve;
  #reject;
  #read;
  #given;
  #kind;
  #startedAt;
  #result;
  #error;

  constructor(resolve, reject, read, given, kind, startedAt) {
    this.#resolve = resolve;
    this.#reject = reject;
    this.#read = read;
    this.#given = given;
    this.#kind = kind;
    this.#startedAt = startedAt;
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
      if (this.#startedAt > 0) metrics.end(this.#kind, this.#startedAt);
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

/** The pending calls of one store, keyed by the ticket that the native call returned. */
class PendingCalls {
  // Weak, because the addon keeps `settle` and so this object. A strong reference would prevent the collection of the
  // store.
  #store;
  // Another object that pending calls need. Weak for the same reason.
  #kept;
  // The store, while a call is pending.
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
   * @param {Metrics} metrics Counts the completed calls.
   * @param {{ isEager?: boolean }} [options] `isEager`: a single call starts immediately. Calls of a FileStore wait for
   * the end of the turn of the event loop instead, because a commit costs much more than each write in it.
   */
  constructor(metrics, { isEager = false } = {}) {
    this.#metrics = metrics;
    this.#isEager = isEager;
  }

  /**
   * The addon calls it for each batch. The first `length` items of `done` alternate between ticket and result. Negative
   * results belong to reads: -1 for "not found", otherwise `-2 - index` into `texts`.
   */
  settle = (done, length, failures, texts) => {
    if (length === 0 && failures.length === 0) return;
    this.#lastBatch = failures.length + length / 2;
    // Take all of them now, because the addon may reuse the tickets from here on.
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
   * Sets the store, which was opened with `settle`.
   * @param {{ timeout?: number, kept?: object }} [options] `timeout`: the deadline of a call in milliseconds, if this
   * class has to watch it. `kept`: another object that pending calls need.
   */
  attach(store, { timeout, kept = store } = {}) {
    this.#store = new WeakRef(store);
    this.#kept = new WeakRef(kept);
    this.#timeout = timeout;
  }

  /**
   * Returns a promise of `read(result, given)`. `result` is the number that a write returned, or the reply of a read or
   * `null`. The call is counted if it has a kind, and measured if `startedAt` is not 0.
   */
  add(ticket, read, given, kind, startedAt) {
    // Register the call first: the addon has started it, so no later error may lose it.
    const promise = new Promise((resolve, reject) => {
      this.#calls[ticket] = new Call(resolve, reject, read, given, kind, startedAt);
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
      // All calls of this turn of the event loop start together.
      setImmediate(this.#wake);
    }
    return promise;
  }

  /** The number of pending calls. */
  get count() {
    return this.#count;
  }

  #wake = () => {
    this.#isWaking = false;
    if (this.#busyStore === undefined) return;
    try {
      native.wake(this.#busyStore);
    } catch {
      // The store was closed, and that started the calls.
    }
  };

  /** Rejects overdue calls after `delay` milliseconds, and repeats while there are calls. */
  #watch(delay) {
    this.#isTimed = true;
    // Add one: a Node.js timer may fire a millisecond early.
    setTimeout(this.#expire, delay + 1).unref();
  }

  #expire = () => {
    this.#isTimed = false;
    if (this.#busyStore === undefined) return;
    try {
      this.#watch(native.expire(this.#busyStore) ?? this.#timeout);
    } catch {
      // The store was closed. `close` has its own deadline, and ends the remaining calls.
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
