"use strict";

// Calls on a store during faults, with the outcome of each: no acknowledged write may be lost, and no refused write may
// have happened.

const { isDeepStrictEqual } = require("node:util");
const { monitorEventLoopDelay } = require("node:perf_hooks");

const HOUR = 3_600_000;
const IDS_OF_A_CALLER = 12;
const RESOLUTION = 5;

const nextTurn = () => new Promise(setImmediate);
const pick = (list) => list[Math.floor(Math.random() * list.length)];
const inHours = () => new Date(Date.now() + HOUR + Math.floor(Math.random() * HOUR)).toISOString();

/** A session with its possible states: one, or two after a write with an unknown outcome. */
class Tracked {
  /** The possible states: sessions, or `null` for absent. */
  states = [null];

  constructor(id) {
    this.id = id;
  }

  get isCertain() {
    return this.states.length === 1;
  }
}

/** Callers that make calls sequentially, each on its own sessions. */
class Traffic {
  #store;
  #tracked;
  #users;
  #running;
  #isStopped = false;
  #delays = monitorEventLoopDelay({ resolution: RESOLUTION });
  /** The calls: `{ start, end, code? }`. `code`: the code of its error. */
  calls = [];
  /** The violations, as text. */
  faults = [];
  unknown = 0;
  #version = 0;
  #listeners = new Set();

  /** `prefix` separates the sessions of several instances on one server. */
  constructor(store, { callers = 24, prefix = "s" } = {}) {
    this.#store = store;
    this.#tracked = Array.from({ length: callers }, (_, caller) =>
      Array.from({ length: IDS_OF_A_CALLER }, (_, at) => new Tracked(`${prefix}-${caller}-${at}`)),
    );
    this.#users = Array.from({ length: Math.ceil(callers / 2) }, (_, at) => `${prefix} user ${at}`);
  }

  get store() {
    return this.#store;
  }

  get ids() {
    return this.#tracked.flat().map(({ id }) => id);
  }

  start() {
    this.#delays.enable();
    this.#running = Promise.all(this.#tracked.map((own) => this.#keepCalling(own)));
    return this;
  }

  /** Stops the calls, and resolves once the last has ended. */
  async stop() {
    this.#isStopped = true;
    await this.#running;
    this.#delays.disable();
  }

  /** The longest block of the event loop, in milliseconds. */
  get stall() {
    return Math.max(0, this.#delays.max / 1e6 - RESOLUTION);
  }

  /** Resolves when `count` calls in a row have succeeded. */
  progress(count) {
    let inARow = 0;
    return this.#hear(({ code }) => {
      inARow = code === undefined ? inARow + 1 : 0;
      return inARow === count;
    });
  }

  /** Resolves when a call that started after this one has failed. */
  failure() {
    const now = performance.now();
    return this.#hear(({ code, start }) => code !== undefined && start > now);
  }

  /** Resolves to the first call that `isIt` from now on. */
  #hear(isIt) {
    return new Promise((resolve) => {
      const listener = (call) => {
        if (!isIt(call)) return;
        this.#listeners.delete(listener);
        resolve(call);
      };
      this.#listeners.add(listener);
    });
  }

  async #keepCalling(own) {
    while (!this.#isStopped) {
      // The state of the others is unknown, so a later write to one could not be checked.
      const certain = own.filter((tracked) => tracked.isCertain);
      if (certain.length === 0) own.push(new Tracked(`${own[0].id}-${own.length}`));
      else await this.#callOn(pick(certain));
    }
  }

  async #callOn(tracked) {
    const { id } = tracked;
    const [now] = tracked.states;
    const kind = Math.random();
    if (now === null) {
      if (kind < 0.1) return this.#read(tracked);
      // No update brings back a deleted session.
      if (kind < 0.2) return this.#write(tracked, null, () => this.#store.update(id, this.#draw(id)));
      const next = this.#draw(id);
      return this.#write(tracked, next, () => this.#store.create(next));
    }
    if (kind < 0.3) return this.#read(tracked);
    if (kind < 0.6) {
      const next = this.#draw(id);
      return this.#write(tracked, next, () => this.#store.update(id, next));
    }
    if (kind < 0.85) {
      const next = { ...now, expires: inHours() };
      return this.#write(tracked, next, () => this.#store.touch(id, next.expires), true);
    }
    return this.#write(tracked, null, () => this.#store.delete(id));
  }

  #draw(sessionId) {
    return { sessionId, expires: inHours(), userId: pick(this.#users), version: ++this.#version };
  }

  async #read(tracked) {
    const answer = await this.#call(() => this.#store.get(tracked.id));
    if (answer.error) return;
    if (!isDeepStrictEqual(answer.value, tracked.states[0]))
      this.#fault("a read gave another state", tracked.id);
  }

  async #write(tracked, next, call, expected) {
    const [before] = tracked.states;
    const answer = await this.#call(call);
    if (answer.error?.outcome === "unknown") {
      this.unknown++;
      if (!isDeepStrictEqual(before, next)) tracked.states = [before, next];
      return;
    }
    if (answer.error) {
      // The error means that nothing has happened.
      if (answer.error.code === "ERR_SESSION_EXISTS") this.#fault("a session was there again", tracked.id);
      return;
    }
    tracked.states = [next];
    if (answer.value !== expected) this.#fault(`a write answered ${answer.value}`, tracked.id);
  }

  async #call(call) {
    const start = performance.now();
    let value;
    let error;
    try {
      value = await call();
    } catch (thrown) {
      error = thrown;
      if (!/^ERR_STORE_(TIMEOUT|UNAVAILABLE)$|^ERR_SESSION_EXISTS$/.test(error.code)) {
        this.#fault(`a call failed with ${error.code}: ${error.message}`);
      }
    }
    const ended = { start, end: performance.now(), code: error?.code };
    this.calls.push(ended);
    for (const listener of this.#listeners) listener(ended);
    // A store may refuse immediately, and the callers must not block the event loop then.
    if (error) await nextTurn();
    return { value, error };
  }

  #fault(what, id) {
    this.faults.push(id ? `${what}: ${id}` : what);
  }

  /** Compares all outcomes to the content of a store: the sessions, and the user index. */
  async check(store) {
    let lost = 0;
    const byUser = new Map(this.#users.map((user) => [user, []]));
    for (const { id, states } of this.#tracked.flat()) {
      const found = await store.get(id);
      if (found) byUser.get(found.userId).push(id);
      if (states.some((state) => isDeepStrictEqual(state, found))) continue;
      lost++;
      this.#fault(`expected ${JSON.stringify(states)}, found ${JSON.stringify(found)}`, id);
    }
    for (const [user, ids] of byUser) {
      const indexed = (await store.getByUser(user)).map(({ sessionId }) => sessionId);
      if (!isDeepStrictEqual(indexed.sort(), ids.sort()))
        this.#fault(`another index: ${indexed}, not ${ids}`, user);
    }
    return lost;
  }

  /**
   * Summarizes a fault between two times: the number of calls until recovery, and the time from the end of the fault to
   * recovery. The store has recovered when no later call fails.
   */
  summary(brokenAt, healedAt = brokenAt) {
    const failures = this.calls.filter(({ code }) => code !== undefined);
    const lastFailure = Math.max(healedAt, ...failures.map(({ start }) => start));
    const well = this.calls.filter(({ code, start }) => code === undefined && start >= lastFailure);
    const recoveredAt = Math.min(...well.map(({ end }) => end));
    const during = this.calls.filter(({ start, end }) => end >= brokenAt && start <= recoveredAt);
    return {
      requests: during.length,
      failed: failures.length,
      unknown: this.unknown,
      longest: Math.max(...this.calls.map(({ start, end }) => end - start)),
      recovered: recoveredAt - healedAt,
      stall: this.stall,
    };
  }
}

module.exports = { Traffic };
