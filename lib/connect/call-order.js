"use strict";

const { SessionStoreError, withMessage } = require("../errors.js");

// The maximum number of waiting calls of one session.
const MAX_WAITING = 256;

// Codes for "the store did not answer". Calls that waited for such a call have used up their own deadline.
const NO_ANSWER = new Set(["ERR_STORE_TIMEOUT", "ERR_STORE_UNAVAILABLE"]);

/**
 * Keeps the order of the calls of one session. A store orders its own calls, but some ConnectStore calls have two
 * steps: they read first and write later. Later calls of the session start after such a call has ended, so that they
 * see its write. If the store did not answer that call, the waiting calls fail as well: otherwise their deadlines would
 * add up.
 */
class CallOrder {
  // By session: `last`, the promise that its next call waits for, and the number of waiting calls. `last` never
  // rejects. It resolves to the error of a store that did not answer, or to `undefined`.
  #queues = new Map();
  #all;
  #hasTwoSteps = false;

  /** Whether a call of the session would have to wait. */
  isBusy(sid) {
    return this.#all !== undefined || (this.#queues.size > 0 && this.#queues.has(sid));
  }

  /** Starts a read: immediately, or after the earlier two-step calls of the session. */
  read(sid, call) {
    if (!this.isBusy(sid)) return call();
    return this.#wait(sid, this.#before(sid), call);
  }

  /** Starts a write in the same way. A `call` with two steps must call `twoSteps` synchronously. */
  write(sid, call) {
    if (!this.isBusy(sid)) {
      const running = this.#start(call);
      if (this.#hasTwoSteps) this.#append(sid, noAnswerOf(running));
      return running;
    }
    let end;
    const before = this.#before(sid);
    const running = this.#wait(sid, before, () => {
      const started = this.#start(call);
      if (this.#hasTwoSteps) end = noAnswerOf(started);
      return started;
    });
    // The next call waits until this one has started, or, if it has two steps, until it has ended.
    this.#append(
      sid,
      before.then((noAnswer) => noAnswer ?? end),
    );
    return running;
  }

  /** Marks the call that is starting as one with two steps. */
  twoSteps() {
    this.#hasTwoSteps = true;
  }

  /**
   * Starts a call on all sessions, after all earlier calls. Later calls wait until it calls `release` or ends.
   */
  async writeAll(call) {
    let release;
    const released = new Promise((resolve) => {
      release = () => resolve();
    });
    const before = this.idle();
    const running = before === undefined ? call(release) : before.then(() => call(release));
    const all = Promise.all([this.#all, Promise.race([released, noAnswerOf(running)])]).then(firstOf);
    this.#all = all;
    all.then(() => {
      if (this.#all === all) this.#all = undefined;
    });
    return running;
  }

  /** Resolves when later calls need not wait for any earlier one. Returns `undefined` if they need not already. */
  idle() {
    if (this.#queues.size === 0) return this.#all;
    return Promise.all([this.#all, ...Array.from(this.#queues.values(), ({ last }) => last)]);
  }

  #before(sid) {
    return Promise.all([this.#all, this.#queues.get(sid)?.last]).then(firstOf);
  }

  /** Starts a call. Afterwards `#hasTwoSteps` is set if it has two steps. */
  #start(call) {
    this.#hasTwoSteps = false;
    return call();
  }

  #append(sid, last) {
    const queue = this.#queues.get(sid) ?? { waiting: 0 };
    queue.last = last;
    this.#queues.set(sid, queue);
    last.then(() => {
      if (queue.last === last) this.#queues.delete(sid);
    });
  }

  async #wait(sid, before, call) {
    const queue = this.#queues.get(sid) ?? { waiting: 0 };
    if (queue.waiting >= MAX_WAITING) {
      const message = `the store is busy: ${MAX_WAITING} calls of this session wait for each other`;
      throw new SessionStoreError("ERR_STORE_BUSY", message);
    }
    queue.waiting++;
    // Not `await`, which would start calls a microtask later than `#append` expects.
    return before.then((noAnswer) => {
      queue.waiting--;
      if (noAnswer === undefined) return call();
      const message = `an earlier call of the session, for which this one waited, failed: ${noAnswer.message}`;
      throw withMessage(noAnswer, message);
    });
  }
}

const firstOf = (errors) => errors.find((error) => error !== undefined);

/** Resolves when a call has ended, to its error if the store did not answer, otherwise to `undefined`. */
const noAnswerOf = (running) =>
  running.then(
    () => undefined,
    (error) => (NO_ANSWER.has(error?.code) ? error : undefined),
  );

module.exports = { CallOrder };
