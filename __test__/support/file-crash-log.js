"use strict";

// What a writer that gets killed has told of its writes, and what of them a store must show.
//
// A line is written before a call, with what the call makes of each session, and another when it is acknowledged.
// Whatever stands in the log of a killed process was written before its death: the kernel keeps it.

const fs = require("node:fs");
const { isDeepStrictEqual } = require("node:util");

/** A session as a line of the log has it: short. */
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

  /** `changes`: `[id, packed session or null]` of all that the call concerns. */
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

/** The calls of a log that were acknowledged, in that order, and those that were not. */
function readLog(file) {
  const lines = fs.existsSync(file) ? fs.readFileSync(file, "utf8").split("\n") : [""];
  // What follows the last line end was cut off by the kill.
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

/** What the acknowledged writes of all processes come to. */
class Expected {
  /** By id: the session, or `null` once there has been one. */
  sessions = new Map();
  acknowledged = 0;
  lost = 0;
  revived = 0;
  torn = 0;

  settle(changes) {
    for (const [id, packed] of changes) this.sessions.set(id, unpack(id, packed));
    this.acknowledged++;
  }

  /** Compares with what was found, by id, and takes over what became of the calls that were under way. */
  compare(found, pending) {
    for (const changes of pending) {
      const happened = changes.filter(([id, packed]) => isSame(found.get(id), unpack(id, packed)));
      const did = happened.length === changes.length;
      // Each call is one step: all of it has happened or nothing.
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
