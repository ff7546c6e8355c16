"use strict";

const { createAt } = require("../create-at.js");
const { EXIT, Failure } = require("./failures.js");
const show = require("./show.js");

const MOST_IN_FLIGHT = 1024;
const MOST_BYTES_IN_FLIGHT = 1 << 24;

const FAULTS_OF_A_SESSION = ["ERR_INVALID_SESSION", "ERR_SESSION_TOO_LARGE"];

/** Writes the entries of a source to a store, many concurrently, and counts the outcomes. */
class Importer {
  failure = null;
  #store;
  #isReplacing;
  #leftOut;
  #counts = { created: 0, replaced: 0, existing: 0, expired: 0 };
  #inFlight = 0;
  #bytesInFlight = 0;
  #wake = null;

  /** @param {LeftOut} [options.leftOut] Collects the entries with a fault. Without it, the first one is a failure. */
  constructor(store, { isReplacing = false, leftOut }) {
    this.#store = store;
    this.#isReplacing = isReplacing;
    this.#leftOut = leftOut;
  }

  /** Resolves when there is room for the next entry. Throws the failure of this entry or of an earlier one. */
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

  /** Resolves when no write is in flight. */
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
    // A name may contain the id of a valid session.
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

  /** @param {number} [createdAt] Omitted if the source does not know it: then the session counts as new. */
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

/** Whether the session has expired. The store reports invalid sessions. */
function hasExpired({ sessionId, expires }) {
  const isTime = typeof expires === "string" || typeof expires === "number";
  return isTime && typeof sessionId === "string" && new Date(expires) <= Date.now();
}

module.exports = { Importer };
