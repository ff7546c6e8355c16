"use strict";

const { EXIT, Failure } = require("./failures.js");
const show = require("./show.js");

const MOST_IN_FLIGHT = 1024;
const MOST_BYTES_IN_FLIGHT = 1 << 24;

const FAULTS_OF_A_LINE = ["ERR_INVALID_SESSION", "ERR_SESSION_TOO_LARGE"];

/** Puts lines into a store, many at once, and counts what became of them. */
class Importer {
  failure = null;
  #store;
  #isReplacing;
  #counts = { created: 0, replaced: 0, existing: 0, expired: 0 };
  #decoder = new TextDecoder("utf-8", { fatal: true });
  #inFlight = 0;
  #bytesInFlight = 0;
  #wake = null;

  constructor(store, { isReplacing = false }) {
    this.#store = store;
    this.#isReplacing = isReplacing;
  }

  /** Resolves when there is room for the next line; throws the failure of this one or of one before. */
  async take(line, number) {
    const session = this.#parse(line, number);
    if (session === null) return;
    if (hasExpired(session)) {
      this.#counts.expired++;
      return;
    }
    this.#start(session, line.length, number);
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
    return `${done.join(", ")}; skipped: ${skipped.join(", ")}`;
  }

  #parse(line, number) {
    let session;
    try {
      const text = this.#decoder.decode(line);
      if (text.trim() === "") return null;
      session = JSON.parse(text);
    } catch {
      // The error itself would show what is in the session.
      throw new Failure(EXIT.no, `line ${number} is not JSON in UTF-8`);
    }
    if (session === null) throw new Failure(EXIT.no, `line ${number} is no session`);
    return session;
  }

  async #start(session, bytes, number) {
    this.#inFlight++;
    this.#bytesInFlight += bytes;
    try {
      await this.#put(session);
    } catch (error) {
      this.failure ??= failureOf(error, number);
    }
    this.#inFlight--;
    this.#bytesInFlight -= bytes;
    this.#wake?.();
  }

  async #until(isSo) {
    while (!isSo()) {
      await new Promise((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async #put(session) {
    try {
      await this.#store.create(session);
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

function failureOf(error, number) {
  const isLine = FAULTS_OF_A_LINE.includes(error.code);
  return new Failure(isLine ? EXIT.no : EXIT.failed, `line ${number}: ${error.message} (${error.code})`);
}

module.exports = { Importer };
