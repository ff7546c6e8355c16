"use strict";

const { createAt } = require("../create-at.js");
const { EXIT, Failure } = require("./failures.js");
const show = require("./show.js");

const MOST_IN_FLIGHT = 1024;
const MOST_BYTES_IN_FLIGHT = 1 << 24;

const FAULTS_OF_A_SESSION = ["ERR_INVALID_SESSION", "ERR_SESSION_TOO_LARGE"];

/** Puts the entries of a source into a store, many at once, and counts what became of them. */
class Importer {
  failure = null;
  #store;
  #isReplacing;
  #leftOut;
  #counts = { created: 0, replaced: 0, existing: 0, expired: 0 };
  #inFlight = 0;
  #bytesInFlight = 0;
  #wake = null;

  /** @param {LeftOut} [options.leftOut] Takes the entries with a fault; without, the first of them is a failure. */
  constructor(store, { isReplacing = false, leftOut }) {
    this.#store = store;
    this.#isReplacing = isReplacing;
    this.#leftOut = leftOut;
  }

  /** Resolves when there is room for the next entry; throws the failure of this one or of one before. */
  async take({ name, fault, session, bytes, createdAt }) {
    if (fault !== undefined) this.#refuse(name, fault);
    if (session === undefined) return;
    if (hasExpired(session)) {
      this.#counts.expired++;
      return;
    }
    this.#start(session, bytes, name, createdAt);
    await this.#until(() => this.#inFlight < MOST_IN_FLIGHT && this.#bytesInFlight < MOST_BYTES_IN_FLIGHT);
    if (this.failure) throw this.failure;
  }

  /** Resolves when nothing is in flight any more. */
  async settle() {
    await this.#until(() => this.#inFlight === 0);
  }

  report() {
    const { created, replaced, existing, expired } = this.#counts;
    const done = [`${show.count(created, "session")} imported`];
    const skipped = [];
    if (this.#isReplacing) done.push(`${show.number(replaced)} replaced`);
    else skipped.push(`${show.number(existing)} existing`);
    skipped.push(`${show.number(expired)} expired`);
    if (this.#leftOut?.count > 0) skipped.push(`${show.number(this.#leftOut.count)} unreadable`);
    return `${done.join(", ")}; skipped: ${skipped.join(", ")}`;
  }

  #refuse(name, fault) {
    if (!this.#leftOut) throw new Failure(EXIT.no, `${name} is ${fault}`);
    this.#leftOut.add(name, fault);
  }

  async #start(session, bytes, name, createdAt) {
    this.#inFlight++;
    this.#bytesInFlight += bytes;
    try {
      await this.#put(session, createdAt);
    } catch (error) {
      this.#fail(error, name);
    }
    this.#inFlight--;
    this.#bytesInFlight -= bytes;
    this.#wake?.();
  }

  #fail(error, name) {
    const isItsOwn = FAULTS_OF_A_SESSION.includes(error.code);
    const message = `${error.message} (${error.code})`;
    if (isItsOwn && this.#leftOut) this.#leftOut.add(name, `refused by the store: ${message}`);
    // A name may tell the id of a session that is sound.
    else if (this.#leftOut) this.failure ??= new Failure(EXIT.failed, message);
    else this.failure ??= new Failure(isItsOwn ? EXIT.no : EXIT.failed, `${name}: ${message}`);
  }

  async #until(isSo) {
    while (!isSo()) {
      await new Promise((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  /** @param {number} [createdAt] Left out where the source does not know it: then the session counts as new. */
  async #put(session, createdAt) {
    try {
      await (createdAt === undefined
        ? this.#store.create(session)
        : this.#store[createAt](session, createdAt));
      this.#counts.created++;
    } catch (error) {
      if (error.code !== "ERR_SESSION_EXISTS") throw error;
      if (!this.#isReplacing) {
        this.#counts.existing++;
        return;
      }
      await this.#store.update(session.sessionId, session);
      this.#counts.replaced++;
    }
  }
}

/** Whether it is a session that has. What is none, the store has to say. */
function hasExpired({ sessionId, expires }) {
  const isTime = typeof expires === "string" || typeof expires === "number";
  return isTime && typeof sessionId === "string" && new Date(expires) <= Date.now();
}

module.exports = { Importer };
