/// <reference lib="esnext.disposable" />
/// <reference types="node" />

import { EventEmitter } from "node:events";
import type { SessionStore } from "./index.js";

/**
 * The stores of this package for express-session and @fastify/session.
 *
 * All times are milliseconds. Every method takes a callback as its last argument, and returns a Promise where it is
 * given none. An error is a `SessionStoreError`; express-session hands it to `next`.
 */

/** A session as express-session and @fastify/session keep it. */
export interface ConnectSession {
  // biome-ignore lint/suspicious/noExplicitAny: each of them has a type of its own
  cookie: any;
  // biome-ignore lint/suspicious/noExplicitAny: the app's own fields
  [field: string]: any;
}

/** Options of {@link ConnectStore}. */
export interface ConnectStoreOptions<Data extends object = ConnectSession> {
  /**
   * How long a session lasts whose cookie has no expiry (`cookie.maxAge` is not set), from its last `set` or `touch`:
   * milliseconds from 1, or a function of the session that returns them.
   * @default 86400000, one day
   */
  ttl?: number | ((session: Data) => number);
  /**
   * Leaves out a write that only prolongs the session, by less than so many milliseconds: `touch`, and a `set` of what
   * the request has not changed (`resave: true`; @fastify/session saves with every response). A session in use always
   * keeps at least half of its lifetime. A write that shortens the session is made. A `set` of a session that `all` or
   * `getByUser` gave, or of an object of the app, reads the stored session first.
   * @default 0: every write is made
   */
  touchAfter?: number;
  /**
   * The `maxLifetime` of the store, for certainty: the constructor throws `ERR_INVALID_OPTION` if the store has another one or
   * none. The store ends each session that long after its creation at the latest. `get` gives the earlier end in
   * `cookie.expires`. A framework that renews the browser's cookie may give that a later one: then the session ends first.
   * @default whatever the store has
   */
  maxLifetime?: number;
  /**
   * Stands before each id in the store, so that others may have sessions in it too: `all`, `ids`, `length`, `clear`
   * and what is done by user are about the ids with this prefix alone. Then `clear` and `destroyByUser` look at each
   * session, and other calls wait until they have found all of them.
   * @default "": all of the store
   */
  prefix?: string;
  /**
   * Whom a session belongs to, as any JSON value, for {@link ConnectStore.destroyByUser} and the store's
   * `maxSessionsPerUser`; `undefined` or `null` for a visitor. With Passport: `(session) => session.passport?.user`.
   * @default nobody
   */
  userId?: (session: Data) => unknown;
}

/** A session and its times. */
export interface ConnectSessionEntry<Data extends object = ConnectSession> {
  sid: string;
  /** A fresh copy, as `get` returns it. */
  session: Data;
  /** When it was created. `null` where the store does not know it: see `SessionEntry` of the stores. */
  createdAt: Date | null;
  /** When it ends if nothing moves that: its cookie's expiry, or what `ttl` made of it. */
  expiresAt: Date;
  /**
   * When a request last saved or touched it, within a second: its end without `cookie.originalMaxAge`, or without `ttl`
   * where the cookie has no expiry. Reads do not count, nor does a touch that `touchAfter` left out: the last use may be
   * later by so much. A session that was last saved under another `ttl` gives a wrong time.
   *
   * `undefined` where the end does not say it: if `ttl` is a function, if `maxLifetime` has moved the end, or if the app
   * has set an end of its own.
   */
  lastUsedAt: Date | undefined;
}

/** A session of a user. */
export interface OwnedSession<Data extends object = ConnectSession> extends ConnectSessionEntry<Data> {
  /** The same as `expiresAt`. */
  expires: Date;
}

/** What a callback is given: an error, or what the Promise would resolve to. */
// biome-ignore lint/suspicious/noExplicitAny: as express-session and @fastify/session declare theirs
export type ConnectCallback<Value = void> = (error: any, value?: Value) => void;

/**
 * A store of this package as express-session and @fastify/session want one.
 *
 * A session that has ended does not come back by a request that loaded it before, in whichever process, and however it
 * ended (`destroy`, `destroyByUser`, `clear`, the store's own methods, `native-store revoke`, expiry). The `set` and the
 * `touch` of such a request are dropped without an error.
 *
 * `set` creates a session if the object is new:
 * - express-session has just generated it, also under an id that was used before.
 * - @fastify/session 11.1.2 or later has made it, and not from a session that it loaded; likewise.
 * - This store has not met its id (in `get`, `set` or `destroy`) within the last hour. It remembers up to a million ids,
 *   and `clear` forgets them.
 *
 * Any other object may be an old copy of a session. It can only update a live one, and `set` rejects with
 * `ERR_SESSION_ENDED` if the session has ended.
 *
 * What a callback throws is an uncaught exception. No callback is called twice. A promise that nobody looks at, such as
 * that of `req.session.destroy()` without a callback, never ends the process. The class extends Node's `EventEmitter` and
 * emits nothing: events are on `node:diagnostics_channel` (see `StoreEvents`). It takes the classes of express-session
 * from the sessions that `session({ store })` generates, so it needs no module of that name near it: bundles and linked
 * packages work.
 *
 * @typeParam Data The session, such as `SessionData` of express-session.
 * @example
 * app.use(session({ secret, store: new ConnectStore(new FileStore({ path: "./sessions" })) }));
 */
export class ConnectStore<Data extends object = ConnectSession> extends EventEmitter {
  /**
   * @param store Any store of this package. It keeps each session as `{ sessionId, expires, userId, session }`.
   * @throws {SessionStoreError} `ERR_INVALID_OPTION` for what is no store, and for an option that is unknown or out of
   * range.
   */
  // biome-ignore lint/suspicious/noExplicitAny: of whatever fields
  constructor(store: SessionStore<any>, options?: ConnectStoreOptions<Data>);

  /** The store that it was made with. */
  // biome-ignore lint/suspicious/noExplicitAny: of whatever fields
  readonly store: SessionStore<any>;

  /**
   * A fresh copy of a live session, or `null`, also for an id of more than 256 bytes, which no session can have. Its
   * cookie says when it ends, as the last `touch` has it.
   */
  get(sid: string): Promise<Data | null>;
  get(sid: string, callback: ConnectCallback<Data | null>): void;

  /**
   * Stores a session. @fastify/session saves a session also if the request has not changed it, and so does
   * express-session with `resave: true`. Then only the expiry moves, as by `touch`: otherwise the request would undo what
   * another one has saved.
   *
   * The store compares the JSON text with that which the same request loaded or stored last, without the cookie. It
   * cannot compare a session that another program stored in another layout, or one whose cookie is not its first field.
   * Such a session is written. So is each one if the app overrides the `get` of the store.
   *
   * Rejects as `create` and `update` of the store do, with `ERR_SESSION_ENDED` (see the class), and with
   * `ERR_INVALID_OPTION` if `ttl` or `userId` return a value that they must not return.
   */
  set(sid: string, session: Data): Promise<void>;
  set(sid: string, session: Data, callback: ConnectCallback | undefined): void;

  /**
   * Moves the expiry of a live session to that of its cookie, or by `ttl`, and stores the cookie if the request changed
   * anything else in it. No session is created. To store a cookie, the stored session is read and written with it: a save
   * by another process at that moment may be lost.
   *
   * A request that shortens its session is believed: a `cookie.expires` or `cookie.maxAge` that ends earlier than what
   * the request loaded becomes the session's end. A request that only renews its cookie never moves the end back,
   * whatever others do at that moment: the store decides it in one call. The session is read first if its object does
   * not say what was loaded (@fastify/session before 11.1.2), and if the app overrides the `touch` of the store.
   */
  touch(sid: string, session: Data): Promise<void>;
  touch(sid: string, session: Data, callback: ConnectCallback | undefined): void;

  /** Ends a session, if there is one. A session that the callback sets under the same id is a new one. */
  destroy(sid: string): Promise<void>;
  destroy(sid: string, callback: ConnectCallback | undefined): void;

  /**
   * All live sessions by their ids, in an object without a prototype. It holds all of them in memory at once, and the event
   * loop up for as long as it takes to make them. Use `sessions` for more than some thousand.
   */
  all(): Promise<Record<string, Data>>;
  all(callback: ConnectCallback<Record<string, Data>>): void;

  /** The ids of all live sessions. */
  ids(): Promise<string[]>;
  ids(callback: ConnectCallback<string[]>): void;

  /**
   * The live sessions with their times, in no order, or those of one user, oldest first. It reads page by page, and promises
   * what `sessions` of the store does. It takes no callback.
   * @param options.userId As for `getByUser`. `undefined` rejects: leave the option out to list everybody.
   */
  sessions(options?: { userId: unknown }): AsyncIterableIterator<ConnectSessionEntry<Data>>;

  /** How many sessions are live. */
  length(): Promise<number>;
  length(callback: ConnectCallback<number>): void;

  /** Ends all sessions. After it, each id can be used for a new session, and each object of the app can be set again. */
  clear(): Promise<void>;
  clear(callback: ConnectCallback | undefined): void;

  /** The live sessions of a user, oldest first (the option `userId`). */
  getByUser(userId: unknown): Promise<OwnedSession<Data>[]>;
  getByUser(userId: unknown, callback: ConnectCallback<OwnedSession<Data>[]>): void;

  /**
   * Ends the sessions of a user: "log out everywhere". Without a prefix, those of others in the same store too.
   * @param options.except The id of one to keep: "log out everywhere else".
   * @returns How many it ended.
   */
  destroyByUser(userId: unknown, options?: { except?: string }): Promise<number>;
  destroyByUser(userId: unknown, callback: ConnectCallback<number>): void;
  destroyByUser(
    userId: unknown,
    options: { except?: string } | undefined,
    callback: ConnectCallback<number>,
  ): void;

  /** Closes the store that it was made with. */
  close(): Promise<void>;
  close(callback: ConnectCallback | undefined): void;

  /** `close()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;

  /** Set and called by express-session: makes the session of a request that has none. */
  // biome-ignore lint/suspicious/noExplicitAny: of express-session
  generate: (req: any) => void;

  /** Of express-session: a new session for a request, whose old one is destroyed. */
  // biome-ignore lint/suspicious/noExplicitAny: of express-session
  regenerate(req: any, callback: (error?: any) => any): void;

  /**
   * Of express-session: `get`, as a session with methods.
   *
   * Fails with `ERR_INVALID_OPTION` if `session({ store })` was never called with this store.
   */
  // biome-ignore lint/suspicious/noExplicitAny: of express-session
  load(sid: string, callback: (error: any, session?: any) => any): void;

  /** Of express-session: makes what `get` gave the session of a request. */
  // biome-ignore lint/suspicious/noExplicitAny: of express-session
  createSession(req: any, session: any): any;
}
