"use strict";

// The log of a writer that gets killed, and the state that a store must have afterwards.
//
// The writer logs a line before a call, with the result for each session, and another line when the call is
// acknowledged. The kernel keeps all lines that a killed process has written.

const fs = require("node:fs");
const { isDeepStrictEqual } = require("node:util");

/** Packs a session for a line of the log. */
const unpack = (id, packed) =>
  packed && {
    sessionId: id,
    userId: packed.user,
    expires: packed.expires,
    version: packed.version,
    blob: "x".repeat(packed.size),
  };

class LogWriter {
  #fd;
  #begun = 0;

  constructor(file) {
    this.#fd = fs.openSync(file, "a");
  }

  /** `changes`: `[id, packed session or null]` of all affected sessions. */
  begin(changes) {
    const number = ++this.#begun;
    this.#write({ begun: number, changes });
    return number;
  }

  end(number) {
    this.#write({ ended: number });
  }

  fault(text) {
    this.#write({ fault: text });
  }

  #write(line) {
    fs.writeSync(this.#fd, `${JSON.stringify(line)}\n`);
  }
}

/** Returns the acknowledged calls of a log, in order, and the others. */
function readLog(file) {
  const lines = fs.existsSync(file) ? fs.readFileSync(file, "utf8").split("\n") : [""];
  // The kill truncated the text after the last line end.
  const entries = lines.slice(0, -1).map((line) => JSON.parse(line));
  const pending = new Map();
  const ended = [];
  for (const { begun, changes, ended: number, fault } of entries) {
    if (fault) throw new Error(`a writer says: ${fault}`);
    if (begun) pending.set(begun, changes);
    if (!number) continue;
    ended.push(pending.get(number));
    pending.delete(number);
  }
  return { ended, pending: [...pending.values()] };
}

/** The state after the acknowledged writes of all processes. */
class Expected {
  /** By id: the session, or `null` if it has ended. */
  sessions = new Map();
  acknowledged = 0;
  lost = 0;
  revived = 0;
  torn = 0;

  settle(changes) {
    for (const [id, packed] of changes) this.sessions.set(id, unpack(id, packed));
    this.acknowledged++;
  }

  /** Compares with the found sessions, by id, and adopts the outcomes of the pending calls. */
  compare(found, pending) {
    for (const changes of pending) {
      const happened = changes.filter(([id, packed]) => isSame(found.get(id), unpack(id, packed)));
      const did = happened.length === changes.length;
      // Each call is atomic.
      if (!did && changes.some(([id]) => !isSame(found.get(id), this.sessions.get(id)))) this.torn++;
      if (did) for (const [id, packed] of changes) this.sessions.set(id, unpack(id, packed));
    }
    for (const id of new Set([...this.sessions.keys(), ...found.keys()])) {
      const expected = this.sessions.get(id) ?? null;
      if (isSame(found.get(id), expected)) continue;
      if (expected === null) this.revived++;
      else this.lost++;
    }
  }
}

const isSame = (one, other) => isDeepStrictEqual(one ?? null, other ?? null);

module.exports = { Expected, LogWriter, readLog };
