"use strict";

const { carriedMark, carriesMarks, carryMark } = require("./fastify-session.js");
const { KnownIds } = require("./known-ids.js");
const { Marked } = require("./marks.js");

/** Whether the object is a framework's session. Such an object belongs to one request. */
const isFrameworkSession = (session) => typeof session.touch === "function";

/**
 * Knows where the objects come from that a ConnectStore is given, by marks on those that it loaded or stored.
 *
 * The origin of a marked object is:
 * - `isNew`: express-session has generated it, and nothing has stored it yet.
 * - `isSure`: it is a request's own, never an old object of the app that serves a second time.
 * - `cookie`, `expires`, `at`: what was loaded or stored last, and when. `expires` is whatever `new Date` takes.
 * - `text`: the text of that record, if the store gave it, and if nothing else is being stored.
 * - `record`: what is being stored.
 *
 * An object without a mark is new. The exception is one that may be a copy of a session: its id was loaded, stored or
 * destroyed within the last hour, and the object does not prove that it was not loaded.
 */
class Origins {
  #met = new KnownIds();
  // Ids of which a framework took a copy without the mark.
  #copied = new KnownIds();
  // The id whose `destroy` calls back at this moment.
  #destroyed;

  /** express-session calls `createSession` for what it loads, which marks it. */
  usesExpress = false;

  /** Notes that an id is, or was, in use. */
  met(sid) {
    this.#met.add(sid);
  }

  /** Allows each id, and each object of the app, to be used for a new session. */
  forget() {
    this.#met = new KnownIds();
  }

  generated(sid, session) {
    Marked.set(session, this.#mark(sid, { isNew: true, isSure: true }));
  }

  /** Marks a loaded object. `loaded` says what was loaded, and when. */
  loaded(sid, session, { cookie, expires, at, text }) {
    this.#markLoaded(session, this.#mark(sid, { isSure: true, cookie, expires, at, text }));
  }

  /** Marks the session that `createSession` has made of an object. */
  revived(sid, session, origin) {
    // One mark for both: what is stored of one changes what is known of the other.
    if (origin.isSure && !origin.isNew) this.#markLoaded(session, origin);
    else this.loaded(sid, session, origin);
  }

  /**
   * Marks an object that is being stored, and returns its origin. A copy shares that of the object, so that each is
   * compared with what was stored last, of whichever. The session of another request does not.
   */
  saving(sid, session, { before, isNew = false, record } = {}) {
    const { isSure = isFrameworkSession(session), cookie, expires, at } = before ?? {};
    const isShared = before !== undefined && !isNew;
    const mark = isShared ? before : this.#mark(sid, { isSure, cookie, expires, at });
    mark.text = undefined;
    mark.record = record;
    Marked.set(session, mark);
    return mark;
  }

  /** Notes that a record is stored, unless the same request is storing another one. */
  saved(mark, record, at) {
    mark.isNew = false;
    if (mark.record !== record) return;
    mark.record = undefined;
    mark.cookie = record.cookie;
    mark.expires = record.expires;
    mark.at = at;
    mark.text = record.json;
  }

  /** The origin of an object, or of the loaded one that it is a copy of. */
  of(sid, session) {
    return this.#own(sid, session) ?? this.#copy(sid, session);
  }

  isNew(sid, session, origin) {
    const own = this.#own(sid, session);
    if (own !== undefined) return own.isNew;
    // `regenerate` of @fastify/session may make the same id again, and its session has the old mark.
    if (this.#destroyed === sid) return true;
    if (origin !== undefined) return false;
    if (!this.#met.has(sid)) return true;
    return !this.usesExpress && carriesMarks(session) && !this.#copied.has(sid);
  }

  /** Wraps the callback of `get`, to notice a framework that does not take the mark. */
  watchLoad(sid, callback) {
    if (typeof callback !== "function" || this.usesExpress) return callback;
    return (error, session) => {
      const mark = Marked.get(session);
      try {
        callback(error, session);
      } finally {
        if (mark !== undefined && !mark.isCarried) this.#copied.add(sid);
      }
    };
  }

  /** Wraps the callback of `destroy`. A session that it stores under the id is a new one. */
  whileDestroyed(sid, callback) {
    if (typeof callback !== "function") return callback;
    return (...result) => {
      this.#destroyed = sid;
      try {
        callback(...result);
      } finally {
        this.#destroyed = undefined;
      }
    };
  }

  #mark(sid, { isNew = false, isSure, cookie, expires, at, text }) {
    return { by: this, era: this.#met, sid, isNew, isSure, cookie, expires, at, text, record: undefined };
  }

  #markLoaded(session, mark) {
    Marked.set(session, mark);
    if (typeof session.cookie !== "object" || session.cookie === null) return;
    // A shallow copy of the session has the same cookie.
    Marked.set(session.cookie, mark);
    if (!this.usesExpress) carryMark(session.cookie);
  }

  #own(sid, object) {
    const mark = Marked.get(object);
    return this.#isOf(sid, mark) ? mark : undefined;
  }

  #copy(sid, session) {
    const mark = carriedMark(session) ?? Marked.get(session.cookie);
    return this.#isOf(sid, mark) ? mark : undefined;
  }

  #isOf(sid, mark) {
    return mark?.sid === sid && mark.by === this && (mark.isSure || mark.era === this.#met);
  }
}

module.exports = { Origins };
