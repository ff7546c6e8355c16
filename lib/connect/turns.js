"use strict";

const ignore = () => {};

/**
 * Keeps the order of the calls of one session. A store orders its own calls, but some of a ConnectStore read first and
 * write later. What was begun after such a call starts once it has ended, so that it sees it.
 */
class Turns {
  // The last call of each session that others have to wait for.
  #last = new Map();
  #all;
  #takesLong = false;

  /** Whether a call of the session would have to wait. */
  isBusy(sid) {
    return this.#all !== undefined || this.#last.has(sid);
  }

  /** Starts a call, at once or after those that it has to wait for. It may use `takeLong` before it first waits. */
  start(sid, call) {
    const last = this.#last.get(sid);
    const before = this.#all === undefined ? last : this.#all.then(() => last);
    if (before !== undefined) return this.#keep(sid, before.then(call));
    this.#takesLong = false;
    const running = call();
    return this.#takesLong ? this.#keep(sid, running) : running;
  }

  /** Says that the call that is starting has several steps. */
  takeLong() {
    this.#takesLong = true;
  }

  /** Starts a call that concerns all sessions. Each call that is begun before it has ended waits for it. */
  startForAll(call) {
    const running = call();
    const all = Promise.all([this.#all, running.then(ignore, ignore)]);
    this.#all = all;
    all.then(() => {
      if (this.#all === all) this.#all = undefined;
    });
    return running;
  }

  #keep(sid, running) {
    const last = running.then(ignore, ignore);
    this.#last.set(sid, last);
    last.then(() => {
      if (this.#last.get(sid) === last) this.#last.delete(sid);
    });
    return running;
  }
}

module.exports = { Turns };
