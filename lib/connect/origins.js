"use strict";

const { carriedMark, carriesMarks, carryMark } = require("./fastify-session.js");
const { KnownIds } = require("./known-ids.js");
const { Marked } = require("./marks.js");

/** Whether the object is a framework's session. Such an object belongs to one request. */
const isFrameworkSession = (session) => typeof session.touch === "function";

/**
 * Tracks the origin of session objects, with a mark on each object that the ConnectStore loaded or stored.
 *
 * The origin of a marked object is:
 * - `isNew`: express-session has generated it, and nothing has stored it yet.
 * - `isRequestOwned`: the object belongs to one request. It is not an old object that the app uses again.
 * - `cookie`, `expires`, `at`: the last loaded or stored values, and when. `new Date` accepts `expires`.
 * - `text`: the text of the record as this request last loaded it or passed it to `set`, unless a write is pending.
 * - `record`: the record of the pending write.
 * - `wasSaved`: whether `set` was called with the object.
 *
 * An object without a mark is new, unless it may be a copy of a session. It may be a copy if its id was loaded, stored
 * or destroyed within the last hour, and its class does not prove that it was not loaded.
 */
class Origins {
  #seen = new KnownIds();
  // Ids whose session a framework copied without the mark.
  #copied = new KnownIds();
  // The mark of the session whose `get` callback is running.
  #loading;
  // The id whose `destroy` callback is running.
  #destroyed;

  /** Whether the framework is express-session. It calls `createSession` for each loaded session, which marks it. */
  usesExpress = false;

  /** Records that an id is, or was, in use. */
  seen(sid) {
    this.#seen.add(sid);
  }

  /** Allows each id, and each object of the app, to be used for a new session. */
  forget() {
    this.#seen = new KnownIds();
  }

  generated(sid, session) {
    Marked.set(session, this.#mark(sid, { isNew: true, isRequestOwned: true }));
  }

  /** Marks a loaded object. */
  loaded(sid, session, { cookie, expires, at, text }) {
    this.#markLoaded(session, this.#mark(sid, { isRequestOwned: true, cookie, expires, at, text }));
  }

  /** Marks the session that `createSession` made from an object. */
  revived(sid, session, origin) {
    // Both share one mark: a write of one object updates the origin of the other.
    if (origin.isRequestOwned && !origin.isNew) this.#markLoaded(session, origin);
    else this.loaded(sid, session, origin);
  }

  /**
   * Marks an object that is being stored, and returns its origin. A copy shares the origin of its object, so both are
   * compared with the last write of either. Sessions of other requests have their own origin.
   */
  saving(sid, session, { before, isNew, record }) {
    const { isRequestOwned = isFrameworkSession(session), cookie, expires, at } = before ?? {};
    const isShared = before !== undefined && !isNew;
    const mark = isShared ? before : this.#mark(sid, { isRequestOwned, cookie, expires, at });
    mark.text = undefined;
    mark.record = record;
    mark.wasSaved = true;
    Marked.set(session, mark);
    return mark;
  }

  /**
   * Marks an object that its request has not changed, and that is only touched. `text` is that of its record. The
   * request may change the object before the touch ends, so the next `set` compares it with `text`.
   */
  unmodified(sid, session, before, text) {
    const mark = before ?? this.#mark(sid, { isRequestOwned: isFrameworkSession(session) });
    Marked.set(session, mark);
    if (!mark.isRequestOwned) return;
    mark.text = text;
    mark.wasSaved = true;
  }

  /** Records that a record was stored, unless the same request has another pending write. */
  saved(mark, record, at) {
    mark.isNew = false;
    if (mark.record !== record) return;
    mark.record = undefined;
    mark.cookie = record.cookie;
    mark.expires = record.expires;
    mark.at = at;
    mark.text = record.json;
  }

  /** Returns the origin of an object, or of the loaded object that it was copied from. */
  of(sid, session) {
    return this.#own(sid, session) ?? this.#copy(sid, session);
  }

  /** Whether `set` was called with this object before. */
  isStoredObject(sid, session) {
    const own = this.#own(sid, session);
    return own?.wasSaved === true;
  }

  isNew(sid, session, origin) {
    const own = this.#own(sid, session);
    if (own !== undefined) return own.isNew;
    // `regenerate` of @fastify/session may reuse the id, and its session carries the old mark.
    if (this.#destroyed === sid) return true;
    if (origin !== undefined) return false;
    // `clear` forgets what was seen, but a request that loaded the session before may still save it.
    if (!this.#seen.has(sid)) return !(isFrameworkSession(session) && this.#isCopied(sid));
    return !this.usesExpress && carriesMarks(session) && !this.#isCopied(sid);
  }

  /** Wraps the callback of `get`, to detect a framework that does not copy the mark. */
  watchLoad(sid, callback) {
    if (typeof callback !== "function" || this.usesExpress) return callback;
    return (error, session) => {
      const mark = Marked.get(session);
      this.#loading = mark;
      try {
        callback(error, session);
      } finally {
        this.#loading = undefined;
        if (mark !== undefined && !mark.isCarried) this.#copied.add(sid);
      }
    };
  }

  /** Whether a framework copied a session of this id without its mark. It may save the copy inside the callback. */
  #isCopied(sid) {
    return this.#copied.has(sid) || (this.#loading?.sid === sid && !this.#loading.isCarried);
  }

  /** Wraps the callback of `destroy`. A session that the callback stores with this id is new. */
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

  #mark(sid, { isNew = false, isRequestOwned, cookie, expires, at, text }) {
    return {
      by: this,
      era: this.#seen,
      sid,
      isNew,
      isRequestOwned,
      cookie,
      expires,
      at,
      text,
      record: undefined,
      wasSaved: false,
    };
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
    return mark?.sid === sid && mark.by === this && (mark.isRequestOwned || mark.era === this.#seen);
  }
}

module.exports = { Origins };
