"use strict";

const { validateOptions } = require("../options.js");
const { SessionStore, prolong } = require("../session-store.js");
const { answer } = require("./answer.js");
const { Base } = require("./base.js");
const { copyOf, isOtherCookie, isSameData, isUnmodified } = require("./changes.js");
const { KnownIds } = require("./known-ids.js");
const { Marked } = require("./marks.js");
const { byUserOptions, checkStore, readOptions } = require("./options.js");
const { expiryOf, idOf, recordOf, sessionOf, timeOf } = require("./record.js");

// Deletes of one call that are under way together.
const AT_ONCE = 256;

const asyncDispose = Symbol.asyncDispose ?? Symbol.for("nodejs.asyncDispose");

/**
 * A store of ours as express-session and @fastify/session want one. `connect.d.ts` documents it.
 *
 * Connect's `set` does not say whether a session is new, so that with most stores a request brings back what was
 * destroyed while it ran. Here it creates only what is new, and else updates, which never creates. New is what
 * express-session has just generated, and an id that this store has not met: @fastify/session tells nothing, but a
 * request has to load a session, here, before it can save it.
 */
class ConnectStore extends Base {
  #store;
  #options;
  #generate;
  #known = new KnownIds();

  constructor(store, options) {
    checkStore(store);
    super();
    this.#store = store;
    this.#options = readOptions(options);
  }

  get store() {
    return this.#store;
  }

  get(sid, callback) {
    return answer(this.#get(sid), callback);
  }

  set(sid, session, callback) {
    return answer(this.#set(sid, session), callback);
  }

  touch(sid, session, callback) {
    return answer(this.#touch(sid, session), callback);
  }

  destroy(sid, callback) {
    return answer(this.#destroy(sid), callback);
  }

  all(callback) {
    return answer(this.#all(), callback);
  }

  ids(callback) {
    return answer(this.#ids(), callback);
  }

  length(callback) {
    return answer(this.#length(), callback);
  }

  clear(callback) {
    return answer(this.#clear(), callback);
  }

  getByUser(userId, callback) {
    return answer(this.#getByUser(userId), callback);
  }

  destroyByUser(userId, options, callback) {
    if (typeof options === "function") return this.destroyByUser(userId, undefined, options);
    return answer(this.#destroyByUser(userId, options), callback);
  }

  close(callback) {
    return answer(this.#store.close(), callback);
  }

  async [asyncDispose]() {
    await this.#store.close();
  }

  /** express-session sets it, and calls it for a request that has no session. */
  get generate() {
    return this.#generate;
  }

  set generate(generate) {
    this.#generate = (req) => {
      generate(req);
      this.#mark(req.session, { sid: req.sessionID, isNew: true });
    };
  }

  /** express-session calls it with what `get` gave. */
  createSession(req, loaded) {
    const { sessionID: sid } = req;
    const mark = { sid, isNew: false, cookie: loaded.cookie, expires: this.#markOf(sid, loaded)?.expires };
    const session = super.createSession(req, loaded);
    this.#mark(session, mark);
    return session;
  }

  async #get(sid) {
    const session = this.#loaded(sid, await this.#store.get(idOf(sid, this.#options.prefix)));
    if (session !== null) this.#known.add(sid);
    return session;
  }

  /** The session of a record, if there is one. */
  #loaded(sid, record) {
    const session = sessionOf(record);
    if (session === null) return null;
    const cookie = copyOf(session.cookie);
    this.#mark(session, { sid, isNew: false, cookie, expires: record.expires });
    return session;
  }

  /**
   * Notes what is known of an object that a request holds: the id, whether it is new, and of one that was loaded or
   * stored its cookie and its end.
   */
  #mark(session, { sid, isNew, cookie, expires }) {
    const mark = { by: this, sid, isNew, cookie, expires };
    Marked.set(session, mark);
    return mark;
  }

  #markOf(sid, session) {
    const mark = Marked.get(session);
    return mark?.sid === sid && mark.by === this ? mark : undefined;
  }

  async #set(sid, session) {
    const record = recordOf(sid, session, this.#options);
    const mark = this.#markOf(sid, session);
    const isNew = mark?.isNew ?? !this.#known.has(sid);
    // Now, as the same request may save it again before this has ended.
    const next = this.#mark(session, { sid, isNew: false, cookie: mark?.cookie, expires: mark?.expires });
    if (!isNew && isUnmodified(session)) return this.#touch(sid, session);
    try {
      const stored = { cookie: copyOf(session.cookie), expires: record.expires };
      if (isNew) await this.#create(record);
      else if (!(await this.#update(record, mark))) return;
      Object.assign(next, stored);
    } catch (error) {
      next.isNew = isNew;
      throw error;
    }
    if (isNew) this.#known.add(sid);
  }

  async #create(record) {
    try {
      await this.#store.create(record);
    } catch (error) {
      // Of an app that makes ids of its own, and made this one twice: what is set last counts, as in every store.
      if (error.code !== "ERR_SESSION_EXISTS") throw error;
      await this.#store.update(record.sessionId, record);
    }
  }

  /** Tells whether it was worth a write. */
  async #update(record, mark) {
    if (this.#options.touchAfter > 0) {
      // As it is now: the app may change it while this waits.
      record.session = JSON.parse(JSON.stringify(record.session));
      if (await this.#isUnchanged(record, mark)) return false;
    }
    await this.#store.update(record.sessionId, record);
    return true;
  }

  /** Whether a write would do nothing but move the expiry, and that by too little. */
  async #isUnchanged({ sessionId, session, expires }, mark) {
    const stored = await this.#store.get(sessionId);
    const kept = sessionOf(stored);
    if (kept === null || isOtherCookie(mark?.cookie ?? kept.cookie, session.cookie)) return false;
    return this.#isTooSoon(stored.expires, timeOf(expires), mark) && isSameData(kept, session);
  }

  async #touch(sid, session) {
    const { prefix, ttl } = this.#options;
    const id = idOf(sid, prefix);
    const expires = expiryOf(session, ttl);
    const mark = this.#markOf(sid, session);
    // What this request did to its cookie: since it was loaded, another may have stored a new one.
    const isOther = mark?.cookie && isOtherCookie(mark.cookie, session.cookie);
    if (isOther === false) {
      // Since it was loaded, the end can only have moved on.
      if (this.#isTooSoon(mark.expires, expires, mark)) return;
      if (this.#prolongs) return this.#prolong(id, expires);
    }
    const stored = await this.#store.get(id);
    const kept = sessionOf(stored);
    if (kept === null) return;
    if (isOther ?? isOtherCookie(kept.cookie, session.cookie)) {
      await this.#replaceCookie(id, session.cookie, expires);
    } else if (!this.#isTooSoon(stored.expires, expires, mark)) {
      await (mark && this.#prolongs ? this.#prolong(id, expires) : this.#store.touch(id, new Date(expires)));
    }
  }

  /** An app may have a `touch` of its own, which is called then. */
  get #prolongs() {
    return this.#store.touch === SessionStore.prototype.touch;
  }

  /** Moves the expiry where that is worth a write by then, and never back. */
  async #prolong(id, expires) {
    await this.#store[prolong](id, expires, this.#enough(expires));
  }

  /** Whether an expiry is not worth a write. A request that did not change the cookie never moves it back. */
  #isTooSoon(before, expires, mark) {
    const old = timeOf(before);
    return old >= this.#enough(expires) && (old <= expires || mark !== undefined);
  }

  /** The first expiry that is so near to one that it is not worth a write. */
  #enough(expires) {
    const { touchAfter } = this.#options;
    if (touchAfter === 0) return expires;
    // A session that is used lasts for half of its lifetime at least, however late it is touched.
    const near = Math.min(touchAfter, (expires - Date.now()) / 2);
    return near > 0 ? Math.floor(expires - near) + 1 : expires;
  }

  async #replaceCookie(id, cookie, expires) {
    // It ends after all writes that were begun before, so that what is read then has them.
    const end = new Date(expires);
    if (!(await this.#store.touch(id, end))) return;
    const stored = await this.#store.get(id);
    if (sessionOf(stored) === null) return;
    stored.session.cookie = cookie;
    await this.#store.update(id, { ...stored, expires: end.toISOString() });
  }

  async #destroy(sid) {
    const id = idOf(sid, this.#options.prefix);
    this.#known.add(sid);
    await this.#store.delete(id);
  }

  /** The ids of this store's sessions. Between some and some the event loop turns. */
  async *#sids() {
    const { prefix } = this.#options;
    for await (const id of this.#store.ids()) {
      if (id.startsWith(prefix)) yield id.slice(prefix.length);
    }
  }

  async #all() {
    // Without a prototype, as an id may be `__proto__`.
    const sessions = Object.create(null);
    for await (const sid of this.#sids()) {
      const session = this.#loaded(sid, await this.#store.get(this.#options.prefix + sid));
      if (session !== null) sessions[sid] = session;
    }
    return sessions;
  }

  async #ids() {
    const sids = [];
    for await (const sid of this.#sids()) sids.push(sid);
    return sids;
  }

  async #length() {
    if (this.#options.prefix === "") return this.#store.size();
    let length = 0;
    for await (const _ of this.#sids()) length++;
    return length;
  }

  async #clear() {
    if (this.#options.prefix === "") return this.#store.clear();
    let some = [];
    for await (const sid of this.#sids()) {
      if (some.push(this.#destroy(sid)) < AT_ONCE) continue;
      await Promise.all(some);
      some = [];
    }
    await Promise.all(some);
  }

  async #getByUser(userId) {
    const { prefix } = this.#options;
    const found = [];
    for (const record of await this.#store.getByUser(userId)) {
      if (!record.sessionId.startsWith(prefix)) continue;
      const sid = record.sessionId.slice(prefix.length);
      const session = this.#loaded(sid, record);
      if (session !== null) found.push({ sid, expires: new Date(record.expires), session });
    }
    return found;
  }

  async #destroyByUser(userId, options) {
    const { except } = validateOptions(options, byUserOptions);
    const { prefix } = this.#options;
    const kept = except === undefined ? undefined : idOf(except, prefix);
    if (prefix === "") return this.#store.deleteByUser(userId, { except: kept });
    const ended = (await this.#getByUser(userId)).filter(({ sid }) => sid !== except);
    await Promise.all(ended.map(({ sid }) => this.#destroy(sid)));
    return ended.length;
  }
}

module.exports = { ConnectStore };
