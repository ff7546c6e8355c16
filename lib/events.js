"use strict";

const { createHash } = require("node:crypto");
const diagnostics = require("node:diagnostics_channel");
// Import the function at load: tests with fake timers replace the global one.
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
// Keep the channels: Node.js drops a channel without references.
const channels = Object.fromEntries(NAMES.map((name) => [name, diagnostics.channel(`native-store:${name}`)]));
const sessionEnd = channels["session:end"];
const writeDropped = channels["write:dropped"];
const storeError = channels["store:error"];
const fileFull = channels["file:full"];

// The topics of the addon, and the channels that they feed. The numbers match `src/events.rs`.
const ENDS = 1;
const SWEEPS = 2;
const OTHERS = 4;
const OTHER_CHANNELS = {
  memory: [],
  file: [channels["file:drain"]],
  redis: [channels["redis:connect"], channels["redis:disconnect"], channels["redis:failover"]],
};

// Subscribers may be slow: the event loop turns after this many events.
const MAX_AT_ONCE = 256;

// Failures of a store. All other codes are errors of the caller.
const IS_FAULT = /^ERR_(STORE_(?!CLOSED)|INTERNAL)/;

/** The first 16 hexadecimal digits of the SHA-256 of an id: it identifies a session, but cannot be used as its id. */
const shortenedHash = (id) => createHash("sha256").update(id).digest("hex").slice(0, 16);

/**
 * Publishes the events of one store object. It holds only the store's description: the addon keeps this object, and a
 * reference to the store would prevent its collection.
 */
class Events {
  #db;
  #others;
  #topics = 0;

  constructor(db) {
    this.#db = db;
    this.#others = OTHER_CHANNELS[db.type];
  }

  /** Makes the addon collect the events that have subscribers. */
  follow(store) {
    let topics = sessionEnd.hasSubscribers ? ENDS : 0;
    if (channels.sweep.hasSubscribers) topics |= SWEEPS;
    for (let at = 0; at < this.#others.length; at++) {
      if (this.#others[at].hasSubscribers) topics |= OTHERS;
    }
    // If another object of this store in this thread receives the events, retry at the next call.
    if (topics !== this.#topics && native.listen(store, topics, this.#signal)) this.#topics = topics;
  }

  /** Publishes the error of a rejected call. */
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

  /** Publishes how many sessions of a user a Redis server ended. The other stores report each session. */
  revoked(userId, count) {
    if (count === 0 || !sessionEnd.hasSubscribers) return;
    this.#ended({ reason: "revoked", id: null, userId, count });
  }

  /** Publishes a `clear`. `count` is `null` if it is unknown. */
  cleared(count) {
    if (count === 0 || !sessionEnd.hasSubscribers) return;
    this.#ended({ reason: "cleared", id: null, userId: null, count });
  }

  #ended(payload) {
    sessionEnd.publish({ store: this.#db, ...payload });
  }

  /** The addon calls it when events arrive, and not again until all are taken. */
  #signal = (inbox) => {
    const taken = takeFrom(inbox);
    if (taken?.length === 0) return;
    for (const [name, payload] of taken ?? []) {
      if (typeof payload.at === "number") payload.at = new Date(payload.at);
      channels[name].publish({ store: this.#db, ...payload });
    }
    // Pending events must not keep the process alive.
    setImmediate(this.#signal, inbox).unref();
  };
}

/** Returns the next events, or `undefined` if they were lost. An app must not crash because of that. */
function takeFrom(inbox) {
  try {
    return JSON.parse(native.takeEvents(inbox, MAX_AT_ONCE));
  } catch (error) {
    process.emitWarning(`events of a store were lost: ${error.message}`, {
      code: "NATIVE_STORE_EVENTS_LOST",
    });
  }
}

/** Publishes that a `ConnectStore` did not store a session, because it had ended. `userId` comes from the record. */
function publishDropped(store, sessionId, userId = null) {
  if (writeDropped.hasSubscribers) {
    writeDropped.publish({ store: store.db, reason: "ended", id: shortenedHash(sessionId), userId });
  }
}

/** Publishes that another process has the store open with other limits. */
function publishLimitsDiffer(db, payload) {
  const channel = channels["limits:differ"];
  if (channel.hasSubscribers) channel.publish({ store: db, ...payload });
}

/** Prints all events if `NODE_DEBUG` contains `native-store`. */
function printEvents() {
  const debug = debuglog("native-store");
  if (!debug.enabled) return;
  for (const [name, channel] of Object.entries(channels)) {
    channel.subscribe(({ store, error, ...payload }) => debug("%s %s %j", name, store.type, payload));
  }
}

printEvents();

module.exports = { Events, publishDropped, publishLimitsDiffer };
