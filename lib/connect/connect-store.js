"use strict";

const { EventEmitter } = require("node:events");
const { inspect } = require("node:util");
const { SessionStoreError, misuse, onBehalfOf, withMessage } = require("../errors.js");
const { publishDropped } = require("../events.js");
const { deleteByUserOptions, validateOptions } = require("../options.js");
const { decode } = require("../session-codec.js");
const { isPossibleId } = require("../session-id.js");
const { answer } = require("./answer.js");
const { endsSooner, isSameData, isUnmodified } = require("./changes.js");
const { copyOf, isOtherCookie } = require("./cookie.js");
const { classesOf, reviveSession } = require("./express-session.js");
const { isFastifySession, loadedCookie } = require("./fastify-session.js");
const { HotCalls } = require("./hot-calls.js");
const { lastUseOf } = require("./last-use.js");
const { Origins } = require("./origins.js");
const { checkStore, readOptions, requireUserId } = require("./options.js");
const { expiryOf, idOf, recordOf, sessionOf, timeOf } = require("./record.js");
const { CallOrder } = require("./call-order.js");

// How many deletes one call runs concurrently.
const MAX_CONCURRENT_DELETES = 256;

// Added to the error of a call that destroys several sessions.
const SOME_DESTROYED = "some of the sessions may be destroyed";

// The result of a `set` that was skipped: it would only have moved the expiry, by less than `touchAfter`.
const NOT_NEEDED = Symbol("not needed");

const asyncDispose = Symbol.asyncDispose ?? Symbol.for("nodejs.asyncDispose");

/**
 * Adapts a store of this package to express-session and @fastify/session. `connect.d.ts` documents it.
 *
 * Connect's `set` does not say whether a session is new. With most stores a request therefore brings back a session
 * that was destroyed while the request ran. Here `origins.js` tracks the origin of each object. `set` creates new
 * sessions, and only updates the others.
 */
class ConnectStore extends EventEmitter {
  #store;
  #calls;
  #options;
  #generate;
  #generateNew;
  #classes;
  #origins = new Origins();
  #order = new CallOrder();

  constructor(store, options) {
    const read = onBehalfOf(ConnectStore, () => readOptions(options, checkStore(store)));
    super();
    this.#store = store;
    this.#calls = new HotCalls(store);
    this.#options = read;
  }

  /** express-session calls it on its option `store`. */
  static on(...args) {
    if (args[0] instanceof EventEmitter) return EventEmitter.on(...args);
    throw misuse("the store is the class ConnectStore: give an instance, new ConnectStore(store)");
  }

  [inspect.custom](depth, options) {
    if (depth < 0) return "[ConnectStore]";
    const { given } = this.#options;
    return `${this.constructor.name} ${inspect({ store: this.#store, ...given }, { ...options, depth })}`;
  }

  get store() {
    return this.#store;
  }

  get(sid, callback) {
    return answer(this.#get(sid), this.#origins.watchLoad(sid, callback));
  }

  set(sid, session, callback) {
    return answer(this.#set(sid, session), callback);
  }

  touch(sid, session, callback) {
    return answer(this.#touch(sid, session), callback);
  }

  destroy(sid, callback) {
    return answer(this.#destroy(sid), this.#origins.whileDestroyed(sid, callback));
  }

  all(callback) {
    return answer(this.#all(), callback);
  }

  ids(callback) {
    return answer(this.#ids(), callback);
  }

  async *sessions(options) {
    if (options?.userId !== undefined) requireUserId(this.#options, "sessions({ userId })");
    await this.#order.idle();
    yield* this.#entries(options);
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

  ready(options, callback) {
    return this.#forward("ready", options, callback);
  }

  ping(options, callback) {
    return this.#forward("ping", options, callback);
  }

  stats(callback) {
    return this.#forward("stats", undefined, callback);
  }

  /** The name in the other stores. */
  async deleteByUser() {
    throw misuse("ConnectStore has no deleteByUser: it is destroyByUser");
  }

  close(callback) {
    return answer(this.#close(), callback);
  }

  async [asyncDispose]() {
    await this.#close();
  }

  /** Creates the session of a request that has none. express-session sets and calls it. */
  get generate() {
    return this.#generate;
  }

  set generate(generate) {
    this.#generateNew = generate;
    this.#generate = (req) => {
      generate(req);
      this.#classes = classesOf(req.session);
      this.#origins.generated(req.sessionID, req.session);
    };
    this.#origins.usesExpress = true;
  }

  /** CallOrder the result of `get` into the session of a request. express-session calls it. */
  createSession(req, loaded) {
    const { sessionID: sid } = req;
    const origin = this.#origins.of(sid, loaded) ?? { cookie: copyOf(loaded.cookie) };
    const { expires } = loaded.cookie;
    const session = reviveSession(this.#classesFor(req), req, loaded);
    // Parse the date only once.
    if (expires && expires === origin.expires) origin.expires = session.cookie.expires.getTime();
    this.#origins.revived(sid, session, origin);
    return session;
  }

  /** Replaces the session of a request. express-session calls it. */
  regenerate(req, callback) {
    this.destroy(req.sessionID, (error) => {
      this.generate(req);
      callback(error);
    });
  }

  load(sid, callback) {
    this.get(sid, (error, loaded) => {
      if (error || loaded === null) return callback(error ?? undefined);
      let session;
      try {
        session = this.createSession({ sessionID: sid, sessionStore: this, headers: {} }, loaded);
      } catch (unmade) {
        return callback(unmade);
      }
      callback(null, session);
    });
  }

  async #forward(method, options, callback) {
    if (typeof (callback ?? options) === "function") {
      throw misuse(`ConnectStore.${method} returns a promise and takes no callback`);
    }
    return this.#store[method](options);
  }

  #classesFor(req) {
    if (this.#classes === undefined) {
      if (this.#generateNew === undefined) {
        throw misuse(
          "createSession and load need express-session: call session({ store, … }) with this store first",
        );
      }
      // The first request of the process may already have a session, so generate one and drop it.
      const probe = Object.create(req);
      this.#generateNew(probe);
      this.#classes = classesOf(probe.session);
    }
    return this.#classes;
  }

  async #close() {
    // Calls that wait were made before `close`.
    await this.#order.idle();
    await this.#store.close();
  }

  #get(sid) {
    try {
      const id = idOf(sid, this.#options.prefix);
      if (!isPossibleId(id)) return Promise.resolve(null);
      if (!this.#order.isBusy(sid)) return this.#calls.load(id, this.#read, sid);
      return this.#order.read(sid, () => this.#calls.load(id, this.#read, sid));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Returns the session of a stored record, of its text, or of `null`. */
  #read = (found, sid) => {
    const isText = typeof found === "string";
    return this.#loaded(sid, isText ? decode(sid, found) : found, isText ? found : undefined);
  };

  /** Returns the session of a record and marks it, or returns `null`. */
  #loaded(sid, record, text) {
    const session = sessionOf(record);
    if (session === null) return null;
    this.#origins.seen(sid);
    const cookie = copyOf(session.cookie);
    this.#origins.loaded(sid, session, { cookie, expires: record.expires, at: Date.now(), text });
    return session;
  }

  #set(sid, session) {
    try {
      // Copy it now, because the app may change the session before it is written.
      const record = recordOf(sid, session, this.#options);
      const before = this.#origins.of(sid, session);
      const isNew = this.#origins.isNew(sid, session, before);
      if (!isNew && isUnmodified(session, record, before, this.#origins.isStoredObject(sid, session))) {
        this.#origins.unmodified(sid, session, before, record.json);
        return this.#touch(sid, session);
      }
      const readsFirst = this.#readsFirst(before);
      const origin = this.#origins.saving(sid, session, { before, isNew, record });
      const at = Date.now();
      const write = () => {
        // An earlier save of this new session may have failed since.
        if (isNew || origin.isNew) return this.#create(record);
        return readsFirst ? this.#compare(record, session, before) : this.#update(record);
      };
      return this.#order.write(sid, write).then(
        (outcome) => {
          if (outcome !== NOT_NEEDED) this.#origins.saved(origin, record, at);
          if (outcome === false) publishDropped(this.#store, record.id, record.user);
          if (isNew) this.#origins.seen(sid);
        },
        (error) => {
          if (isNew) origin.isNew = true;
          if (error.code === "ERR_SESSION_ENDED") origin.isRequestOwned = false;
          throw error;
        },
      );
    } catch (error) {
      return Promise.reject(error);
    }
  }

  async #create(record) {
    this.#order.twoSteps();
    try {
      await this.#calls.create(record.json);
    } catch (error) {
      // The app chooses its ids, and used this one twice. The last `set` wins, as in every store.
      if (error.code !== "ERR_SESSION_EXISTS") throw error;
      return this.#update(record);
    }
  }

  /** Resolves to `false` if the session is absent. */
  #update({ id, json }) {
    return this.#calls.update(id, json);
  }

  /** Whether an update of a changed object with this origin has to read the stored session. */
  #readsFirst(origin) {
    return origin?.isRequestOwned !== true || (this.#options.touchAfter > 0 && origin.text === undefined);
  }

  /** Reads the stored session, and then updates it or returns `NOT_NEEDED`. */
  async #compare(record, session, origin) {
    this.#order.twoSteps();
    const stored = await this.#store.get(record.id);
    if (stored === null && origin?.isRequestOwned !== true) {
      publishDropped(this.#store, record.id, record.user);
      throw sessionEnded();
    }
    if (this.#options.touchAfter > 0 && this.#isStored(stored, record, session, origin)) {
      return NOT_NEEDED;
    }
    return this.#update(record);
  }

  /** Whether a write would only move the expiry, by less than `touchAfter`. */
  #isStored(stored, { expires, json }, held, origin) {
    const kept = sessionOf(stored);
    const { session, userId } = JSON.parse(json);
    if (kept === null || JSON.stringify(stored.userId) !== JSON.stringify(userId)) return false;
    if (isOtherCookie(origin?.cookie ?? kept.cookie, session.cookie)) return false;
    if (endsSooner(held, expires, origin)) return false;
    return this.#isTooSoon(stored.expires, expires, origin) && isSameData(kept, session);
  }

  #touch(sid, session) {
    try {
      return this.#order.write(sid, () => this.#startTouch(sid, session));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #startTouch(sid, session) {
    const { prefix, ttl } = this.#options;
    const id = idOf(sid, prefix);
    const expires = expiryOf(session, ttl);
    if (!isPossibleId(id)) return Promise.resolve();
    const origin = this.#origins.of(sid, session);
    if (origin?.cookie !== undefined) {
      // Compare with the cookie that this request loaded: another one may have stored a new cookie since.
      if (isOtherCookie(origin.cookie, session.cookie) || endsSooner(session, expires, origin)) {
        this.#order.twoSteps();
        return this.#replaceCookie(id, session, expires, origin);
      }
      if (this.#isTooSoon(origin.expires, expires, origin)) return Promise.resolve();
      if (this.#calls.canProlong) return this.#prolong(id, expires);
    }
    this.#order.twoSteps();
    return this.#touchStored(id, session, expires, origin);
  }

  /** Reads the stored session, and then touches it. */
  async #touchStored(id, session, expires, origin) {
    const stored = await this.#store.get(id);
    const kept = sessionOf(stored);
    if (kept === null) return;
    if (origin?.cookie === undefined && this.#changesCookie(kept, session, expires)) {
      await this.#replaceCookie(id, session, expires, origin);
    } else if (!this.#isTooSoon(stored.expires, expires, origin)) {
      await (origin && this.#calls.canProlong
        ? this.#prolong(id, expires)
        : this.#store.touch(id, new Date(expires)));
    }
  }

  /** Whether a session of unknown origin has another cookie than the stored session. */
  #changesCookie(kept, session, expires) {
    if (isOtherCookie(kept.cookie, session.cookie)) return true;
    return isFastifySession(session) && endsSooner(session, expires, loadedCookie(session));
  }

  /** Extends the expiry if the stored one is early enough. Never shortens it. */
  #prolong(id, expires) {
    return this.#calls.prolong(id, expires, this.#enough(expires));
  }

  /** Whether moving the expiry is not worth a write. A request that did not shorten the session never moves it back. */
  #isTooSoon(before, expires, origin) {
    const old = timeOf(before);
    return old >= this.#enough(expires) && (old <= expires || origin !== undefined);
  }

  /** The earliest stored expiry that is close enough to `expires` to skip the write. */
  #enough(expires) {
    const { touchAfter } = this.#options;
    if (touchAfter === 0) return expires;
    // A session in use always keeps at least half of its lifetime.
    const near = Math.min(touchAfter, (expires - Date.now()) / 2);
    return near > 0 ? Math.floor(expires - near) + 1 : expires;
  }

  async #replaceCookie(id, session, expires, origin) {
    const cookie = copyOf(session.cookie);
    const end = new Date(expires);
    // The touch completes after all earlier writes, so that the read sees them.
    const isLive = await this.#store.touch(id, end);
    try {
      const stored = isLive ? await this.#store.get(id) : null;
      if (sessionOf(stored) === null) return publishDropped(this.#store, id, stored?.userId);
      stored.session.cookie = cookie;
      await this.#store.update(id, { ...stored, expires: end.toISOString() });
    } catch (error) {
      throw uncertain(error, "the expiry of the session may have moved");
    }
    if (origin !== undefined) Object.assign(origin, { cookie, expires, at: Date.now() });
  }

  async #destroy(sid) {
    const id = idOf(sid, this.#options.prefix);
    if (!isPossibleId(id)) return;
    this.#origins.seen(sid);
    await this.#order.write(sid, () => this.#store.delete(id));
  }

  /** Destroys a batch of sessions. */
  async #destroyEach(sids) {
    const destroy = (sid) => {
      this.#origins.seen(sid);
      return this.#store.delete(this.#options.prefix + sid);
    };
    const ends = await Promise.allSettled(sids.map(destroy));
    const failed = ends.find(({ status }) => status === "rejected");
    if (failed === undefined) return;
    const isPartial = ends.some(({ status, reason }) => status === "fulfilled" || hasOutcome(reason));
    throw isPartial ? uncertain(failed.reason, SOME_DESTROYED) : failed.reason;
  }

  /** Iterates over the ids of this store's sessions. The event loop turns between the pages. */
  async *#sids() {
    const { prefix } = this.#options;
    for await (const id of this.#store.ids()) {
      if (id.startsWith(prefix)) yield id.slice(prefix.length);
    }
  }

  async #all() {
    await this.#order.idle();
    // Without a prototype, because an id may be `__proto__`.
    const sessions = Object.create(null);
    for await (const sid of this.#sids()) {
      const session = this.#loaded(sid, await this.#store.get(this.#options.prefix + sid));
      if (session !== null) sessions[sid] = session;
    }
    return sessions;
  }

  async #ids() {
    await this.#order.idle();
    const sids = [];
    for await (const sid of this.#sids()) sids.push(sid);
    return sids;
  }

  async #length() {
    await this.#order.idle();
    if (this.#options.prefix === "") return this.#store.size();
    let length = 0;
    for await (const _ of this.#sids()) length++;
    return length;
  }

  async #clear() {
    await this.#order.writeAll(() =>
      this.#options.prefix === "" ? this.#store.clear() : this.#destroyAll(),
    );
    this.#origins.forget();
  }

  async #destroyAll() {
    let batch = [];
    let hasDestroyed = false;
    try {
      for await (const sid of this.#sids()) {
        if (batch.push(sid) < MAX_CONCURRENT_DELETES) continue;
        await this.#destroyEach(batch);
        hasDestroyed = true;
        batch = [];
      }
      await this.#destroyEach(batch);
    } catch (error) {
      throw hasDestroyed && !hasOutcome(error) ? uncertain(error, SOME_DESTROYED) : error;
    }
  }

  async #getByUser(userId) {
    requireUserId(this.#options, "getByUser");
    await this.#order.idle();
    const found = [];
    for await (const entry of this.#entries({ userId })) found.push({ ...entry, expires: entry.expiresAt });
    return found;
  }

  async *#entries(options) {
    for await (const entry of this.#store.sessions(options)) {
      const owned = this.#owned(entry);
      if (owned !== null) yield owned;
    }
  }

  /**
   * Converts the store's entry to the entry of a Connect session. Returns `null` for another prefix or another kind of
   * session.
   */
  #owned({ session: record, createdAt, expiresAt }) {
    const { prefix } = this.#options;
    if (!record.sessionId.startsWith(prefix)) return null;
    const sid = record.sessionId.slice(prefix.length);
    const session = this.#loaded(sid, record);
    if (session === null) return null;
    const entry = { sid, session, createdAt, expiresAt };
    return { ...entry, lastUsedAt: lastUseOf(entry, this.#options) };
  }

  async #destroyByUser(userId, options) {
    requireUserId(this.#options, "destroyByUser");
    const { except } = validateOptions(options, deleteByUserOptions, { of: "destroyByUser" });
    const { prefix } = this.#options;
    const kept = except === undefined ? undefined : idOf(except, prefix);
    if (prefix === "" && this.#order.idle() === undefined) {
      return this.#store.deleteByUser(userId, { except: kept });
    }
    return this.#order.writeAll(async (release) => {
      if (prefix === "") {
        const ending = this.#store.deleteByUser(userId, { except: kept });
        // The store orders later calls itself.
        release();
        return ending;
      }
      const sids = [];
      // An unreadable session must not keep the others alive.
      let failed;
      try {
        for await (const { sid } of this.#entries({ userId })) if (sid !== except) sids.push(sid);
      } catch (error) {
        failed = error;
      }
      const ending = this.#destroyEach(sids);
      release();
      await ending;
      if (failed !== undefined) throw sids.length > 0 ? uncertain(failed, SOME_DESTROYED) : failed;
      return sids.length;
    });
  }
}

const hasOutcome = (error) => error?.outcome !== undefined;

/** The error of a call that was carried out in part, or may have been. */
function uncertain(error, change) {
  if (!(error instanceof SessionStoreError)) return error;
  return Object.assign(withMessage(error, `${error.message}; ${change}`), { outcome: "unknown" });
}

function sessionEnded() {
  return new SessionStoreError(
    "ERR_SESSION_ENDED",
    "a session of this sessionId ended within the last hour, and the given session may be an old copy of it: nothing " +
      "was stored; use another sessionId, or clear() the store first",
  );
}

module.exports = { ConnectStore };
