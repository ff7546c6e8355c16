"use strict";

const { createHash } = require("node:crypto");
const diagnostics = require("node:diagnostics_channel");
// From the module, and at load: a suite with fake timers replaces the global.
const { setImmediate } = require("node:timers");
const { debuglog } = require("node:util");
const native = require("./native.js");

const NAMES = [
  "session:end",
  "write:dropped",
  "store:error",
  "sweep",
  "redis:connect",
  "redis:disconnect",
  "redis:failover",
  "file:drain",
  "file:full",
  "limits:differ",
];
// Kept here, as Node.js forgets a channel that nobody has.
const channels = Object.fromEntries(NAMES.map((name) => [name, diagnostics.channel(`native-store:${name}`)]));
const sessionEnd = channels["session:end"];
const writeDropped = channels["write:dropped"];
const storeError = channels["store:error"];
const fileFull = channels["file:full"];

// The topics of the addon, with the channels that are fed from there. `src/events.rs` has the numbers.
const ENDS = 1;
const SWEEPS = 2;
const OTHERS = 4;
const OTHER_CHANNELS = {
  memory: [],
  file: [channels["file:drain"]],
  redis: [channels["redis:connect"], channels["redis:disconnect"], channels["redis:failover"]],
};

// The event loop turns after so many events, whose subscribers may do much.
const MAX_AT_ONCE = 256;

// The faults of a store. The other codes are of what it was given.
const IS_FAULT = /^ERR_(STORE_(?!CLOSED)|INTERNAL)/;

/** The first 16 hexadecimal digits of the SHA-256 of an id: enough to tell sessions apart, and not enough to be one. */
const shortenedHash = (id) => createHash("sha256").update(id).digest("hex").slice(0, 16);

/** Publishes what happens in one store object. It knows the store by its description alone, so that the addon may keep it. */
class Events {
  #db;
  #others;
  #topics = 0;

  constructor(db) {
    this.#db = db;
    this.#others = OTHER_CHANNELS[db.type];
  }

  /** Has the addon collect what there are subscribers for. */
  follow(store) {
    let topics = sessionEnd.hasSubscribers ? ENDS : 0;
    if (channels.sweep.hasSubscribers) topics |= SWEEPS;
    for (let at = 0; at < this.#others.length; at++) {
      if (this.#others[at].hasSubscribers) topics |= OTHERS;
    }
    // If another object of this store in this thread gets the events, this one asks again with its next call.
    if (topics !== this.#topics && native.listen(store, topics, this.#signal)) this.#topics = topics;
  }

  /** A call was rejected. */
  failed(call, error) {
    if (!IS_FAULT.test(error.code)) return;
    const { code, reason, outcome, message } = error;
    if (storeError.hasSubscribers) {
      storeError.publish({ store: this.#db, call, code, reason, outcome, message, error });
    }
    if (code === "ERR_STORE_FULL" && this.#db.type === "file" && fileFull.hasSubscribers) {
      fileFull.publish({ store: this.#db, call, message });
    }
  }

  /** A server has ended the sessions of a user. The other stores report each of them themselves. */
  revoked(userId, count) {
    if (count === 0 || !sessionEnd.hasSubscribers) return;
    this.#ended({ reason: "revoked", id: null, userId, count });
  }

  /** `count` is `null` where it is not known. */
  cleared(count) {
    if (count === 0 || !sessionEnd.hasSubscribers) return;
    this.#ended({ reason: "cleared", id: null, userId: null, count });
  }

  #ended(payload) {
    sessionEnd.publish({ store: this.#db, ...payload });
  }

  /** The addon calls it when there are events, and not again before all are taken. */
  #signal = (inbox) => {
    const taken = takeFrom(inbox);
    if (taken?.length === 0) return;
    for (const [name, payload] of taken ?? []) {
      if (typeof payload.at === "number") payload.at = new Date(payload.at);
      channels[name].publish({ store: this.#db, ...payload });
    }
    // A process that has nothing else to do may end.
    setImmediate(this.#signal, inbox).unref();
  };
}

/** The next events, or nothing if they are lost: no app is to end by that. */
function takeFrom(inbox) {
  try {
    return JSON.parse(native.takeEvents(inbox, MAX_AT_ONCE));
  } catch (error) {
    process.emitWarning(`events of a store were lost: ${error.message}`, {
      code: "NATIVE_STORE_EVENTS_LOST",
    });
  }
}

/** A `ConnectStore` has not stored a session, as it has ended. `userId` is what the record says. */
function publishDropped(store, sessionId, userId = null) {
  if (writeDropped.hasSubscribers) {
    writeDropped.publish({ store: store.db, reason: "ended", id: shortenedHash(sessionId), userId });
  }
}

/** Another process has a store open with other limits. */
function publishLimitsDiffer(db, payload) {
  const channel = channels["limits:differ"];
  if (channel.hasSubscribers) channel.publish({ store: db, ...payload });
}

/** Prints events in a process that has `NODE_DEBUG=native-store`. */
function printEvents() {
  const debug = debuglog("native-store");
  if (!debug.enabled) return;
  for (const [name, channel] of Object.entries(channels)) {
    channel.subscribe(({ store, error, ...payload }) => debug("%s %s %j", name, store.type, payload));
  }
}

printEvents();

module.exports = { Events, publishDropped, publishLimitsDiffer };
