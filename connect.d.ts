/**
 * The stores of this package for express-session and `@fastify/session`.
 *
 * All times are milliseconds. Methods take a callback as their last argument, and return a Promise without one. Only
 * `sessions`, `ready`, `ping` and `stats` take no callback. Errors are `SessionStoreError`s. express-session passes
 * them to `next`.
 */

// @ts-ignore: any class where Node's types are not installed, as in an app on FluidAuth alone
import { EventEmitter } from "node:events";
import type { PingOptions, SessionStore } from "./index.js";

/** `never` for a type without keys, or with any keys: the type of a package that is not installed. */
type Installed<Type> = [keyof Type] extends [never] ? never : string extends keyof Type ? never : Type;

// @ts-ignore: may not be installed
type ExpressSession = Installed<import("express-session").SessionData>;
// @ts-ignore: may not be installed
type FastifySession = Installed<Parameters<import("@fastify/session").SessionStore["set"]>[1]>;

/**
 * The session of the framework that is installed: `SessionData` of express-session or `Session` of Fastify, with the
 * fields that your app has declared in it. Any fields are allowed if neither is installed.
 */
export type AppSession = [ExpressSession, FastifySession] extends [never, never]
  ? ConnectSession
  : [ExpressSession] extends [never]
    ? FastifySession
    : [FastifySession] extends [never]
      ? ExpressSession
      : ExpressSession & FastifySession;

/** A session as express-session and `@fastify/session` keep it. */
export interface ConnectSession {
  /** When the browser's cookie ends, and its attributes. */
  // biome-ignore lint/suspicious/noExplicitAny: each of them has a type of its own
  cookie: any;
  // biome-ignore lint/suspicious/noExplicitAny: the app's own fields
  [field: string]: any;
}

/** Options of {@link ConnectStore}. */
export interface ConnectStoreOptions<Data extends object = AppSession> {
  /**
   * The lifetime, in **milliseconds**, of sessions whose cookie has no `maxAge`. It counts from the last `set` or `touch`.
   * A whole number from 1, or a function of the session that returns one.
   * @default 86400000, one day
   */
  ttl?: number | ((session: Data) => number);
  /**
   * Skips a write that would only move the expiry, by less than this many **milliseconds**. That is a `touch`, or a
   * `set` that changes nothing (`resave: true`, and `@fastify/session` with every response). A session in use always
   * keeps at least half of its lifetime. A write that shortens the session, or changes its user, is never skipped. A
   * `set` of a session from `all` or `getByUser`, or of the app's own object, reads the stored session first.
   * @default 0: no write is skipped
   */
  touchAfter?: number;
  /**
   * The expected `maxLifetime` of the store, in milliseconds: the constructor throws if the store has another one, or
   * none. The store ends each session at most that long after its creation. `get` returns the earlier end in
   * `cookie.expires`. A framework that renews the browser's cookie may give it a later end. Then the session ends
   * before the cookie.
   * @default whatever the store has
   */
  maxLifetime?: number;
  /**
   * The prefix of each id in the store, so that several apps can share it. `all`, `ids`, `length`, `clear`, `getByUser`
   * and `destroyByUser` cover only the ids with this prefix. With a prefix, `clear` reads each session, and
   * `destroyByUser` each of the user's. Other calls wait until `clear` has ended, or `destroyByUser` has found them.
   * @default "": the whole store
   */
  prefix?: string;
  /**
   * Returns the user of a session, as any JSON value, or `undefined` or `null` for a visitor.
   * {@link ConnectStore.getByUser}, {@link ConnectStore.destroyByUser} and the store's `maxSessionsPerUser` need it. With
   * Passport: `(session) => session.passport?.user`. The type counts: `42` is not `"42"`.
   *
   * With the store's `whenUserIsFull: "reject"`, the `set` of one more session of a full user fails with
   * `ERR_TOO_MANY_SESSIONS`, and the user's sessions remain. Call `req.session.save` at login and wait for it, so that the
   * error reaches `next` before the response is sent.
   * @default no session has a user
   */
  userId?: (session: Data) => unknown;
}

/** A session and its times. */
export interface ConnectSessionEntry<Data extends object = AppSession> {
  /** The id, as in the cookie. */
  sid: string;
  /** A fresh copy, as `get` returns it: parsed JSON, where `cookie.expires` is ISO text. */
  session: Data;
  /** When it was created. `null` where the store does not know it: see `SessionEntry` of the stores. */
  createdAt: Date | null;
  /** When it ends unless the expiry moves: the expiry of its cookie, or by `ttl`. */
  expiresAt: Date;
  /**
   * When a request last saved or touched it, within a second. It is the expiry minus `cookie.originalMaxAge`, or minus
   * `ttl` if the cookie has no expiry. Reads do not count, nor do touches that `touchAfter` skipped: the last use may
   * be later by up to that. The time is wrong for a session that was last saved with another `ttl`.
   *
   * `undefined` if the expiry does not imply it: if `ttl` is a function, if `maxLifetime` has moved the expiry, or if
   * the app has set its own.
   */
  lastUsedAt: Date | undefined;
}

/** A session of a user. */
export interface OwnedSession<Data extends object = AppSession> extends ConnectSessionEntry<Data> {
  /** The same as `expiresAt`. */
  expires: Date;
}

/** Called with an error, or with the value that the Promise would resolve to. */
// biome-ignore lint/suspicious/noExplicitAny: as the frameworks declare theirs
export type ConnectCallback<Value = void> = (error: any, value?: Value) => void;

/**
 * Adapts a store of this package to express-session and `@fastify/session`.
 *
 * A request that loaded a session before it ended cannot bring it back, in any process, and however the session ended:
 * `destroy`, `destroyByUser`, `clear`, the store's own methods, `native-store revoke` or expiry. The `set` and the
 * `touch` of such a request are dropped without an error.
 *
 * `set` creates a session if the object is new:
 * - express-session has just generated it, even with an id that was used before.
 * - `@fastify/session` 11.1.2 or later has created it, and did not load it, even with an id that was used before.
 * - This store has not seen its id (in `get`, `set` or `destroy`) within the last hour. It remembers up to a million
 *   ids, and `clear` forgets them.
 *
 * Any other object may be an old copy of a session. It can only update a live one, and `set` rejects with
 * `ERR_SESSION_ENDED` if the session has ended.
 *
 * An error that a callback throws is an uncaught exception. No callback is called twice. A promise without a handler,
 * such as that of `req.session.destroy()` without a callback, never ends the process. The class extends Node's
 * `EventEmitter` and emits nothing: events are on `node:diagnostics_channel` (see `StoreEvents`). It takes the classes
 * of express-session from the sessions that `session({ store })` generates. It does not load that module itself, so
 * bundles and linked packages work.
 *
 * @typeParam Data The session. By default the session of your framework, with the fields that your app has declared in
 * it.
 * @typeParam Store The class of the store.
 * @example
 * app.use(session({ secret, store: new ConnectStore(new FileStore({ path: "./sessions" })) }));
 */
export class ConnectStore<
  Data extends object = AppSession,
  // biome-ignore lint/suspicious/noExplicitAny: of whatever fields
  Store extends SessionStore<any> = SessionStore<any>,
> extends EventEmitter {
  /**
   * Adapts a store to express-session and `@fastify/session`.
   *
   * @param store Any store of this package. It keeps each session as `{ sessionId, expires, userId, session }`.
   * @example
   * const store = new ConnectStore(new FileStore({ path: "/var/lib/app/sessions" }), {
   *   userId: (session) => session.userId,
   * });
   * @throws {SessionStoreError} `ERR_INVALID_OPTION`.
   * @see https://github.com/fluidauth/native-store/blob/main/docs/connect-store.md
   */
  constructor(store: Store, options?: ConnectStoreOptions<Data>);

  /** The store that the constructor was given. */
  readonly store: Store;

  /**
   * Returns a fresh copy of a live session, or `null`, also for an id of more than 256 bytes, which no session can
   * have. `cookie.expires` is its expiry after the last `touch`.
   *
   * The copy is parsed JSON, although its type is that of the framework. `cookie.expires` is ISO text or `null`, never a
   * `Date`. The cookie has `originalMaxAge`, but no `maxAge`, and nothing has methods. `load` of express-session returns
   * a session with all of them.
   */
  get(sid: string): Promise<Data | null>;
  get(sid: string, callback: ConnectCallback<Data | null>): void;

  /**
   * Stores a session. `@fastify/session`, and express-session with `resave: true`, save a session even if the request
   * has not changed it. Then only the expiry moves, as by `touch`. Otherwise the request would undo the changes of
   * another one.
   *
   * To detect that, it compares the JSON text without the cookie to the text that this request last loaded or saved.
   * It cannot compare a session that another program stored in another layout, or a session whose cookie is not its
   * first field. It always writes such a session, and every session if the app overrides the `get` of the store.
   *
   * Rejects as `create` and `update` of the store do, with `ERR_SESSION_ENDED` (see the class), and with
   * `ERR_INVALID_OPTION` if `ttl` or `userId` returns an invalid value.
   */
  set(sid: string, session: Data): Promise<void>;
  set(sid: string, session: Data, callback: ConnectCallback | undefined): void;

  /**
   * Moves the expiry of a live session to that of its cookie, or by `ttl`. If the request changed another field of the
   * cookie, it stores the cookie, too. It never creates a session. To store a cookie it reads and rewrites the stored
   * session: a concurrent save by another process may be lost.
   *
   * A request may shorten its session: if its `cookie.expires` or `cookie.maxAge` ends earlier than the loaded one,
   * that becomes the expiry. A request that only renews its cookie never moves the expiry back, whatever other requests
   * do: the store decides this atomically. It reads the session first if its object does not tell which expiry was
   * loaded (`@fastify/session` before 11.1.2), or if the app overrides the `touch` of the store.
   */
  touch(sid: string, session: Data): Promise<void>;
  touch(sid: string, session: Data, callback: ConnectCallback | undefined): void;

  /** Ends a session, if it exists. If the callback sets a session with the same id, that is a new session. */
  destroy(sid: string): Promise<void>;
  destroy(sid: string, callback: ConnectCallback | undefined): void;

  /**
   * Returns all live sessions by id, in an object without a prototype. It holds all of them in memory, and blocks the
   * event loop while it builds them. Use `sessions` for more than a few thousand. Each is parsed JSON, as `get` returns
   * it.
   */
  all(): Promise<Record<string, Data>>;
  all(callback: ConnectCallback<Record<string, Data>>): void;

  /** Returns the ids of all live sessions. */
  ids(): Promise<string[]>;
  ids(callback: ConnectCallback<string[]>): void;

  /**
   * Iterates over the live sessions with their times, in no order, or those of one user, oldest first. It reads page by
   * page, or those of a user at once, with the guarantees of the store's `sessions`. It takes no callback. Each
   * `session` is parsed JSON, as `get` returns it.
   * @param options.userId As for `getByUser`. `undefined` rejects: leave the option out to list everybody.
   */
  sessions(options?: { userId: unknown }): AsyncIterableIterator<ConnectSessionEntry<Data>>;

  /** Counts the live sessions. */
  length(): Promise<number>;
  length(callback: ConnectCallback<number>): void;

  /** Ends all sessions. After it, each id can be used for a new session, and each object of the app can be set again. */
  clear(): Promise<void>;
  clear(callback: ConnectCallback | undefined): void;

  /**
   * Returns the live sessions of a user, oldest first: "your devices". Each `session` is parsed JSON, as `get` returns
   * it.
   *
   * Rejects with `ERR_INVALID_OPTION` without the option `userId`: no session would have a user.
   * @param userId The value that the option `userId` returned, with its type: `42` is not `"42"`.
   */
  getByUser(userId: unknown): Promise<OwnedSession<Data>[]>;
  getByUser(userId: unknown, callback: ConnectCallback<OwnedSession<Data>[]>): void;

  /**
   * Ends the sessions of a user: "log out everywhere". Without a prefix, this includes the user's sessions of other
   * apps in the same store.
   *
   * Rejects with `ERR_INVALID_OPTION` without the option `userId`: no session would have a user. With a prefix, it rejects
   * with `ERR_STORE_CORRUPT` if sessions cannot be read. It has then ended the others, or none in a `FileStore`.
   * @param userId As for `getByUser`.
   * @param options.except The id of one session to keep: "log out everywhere else".
   * @returns How many live sessions it ended.
   * @example
   * await store.destroyByUser(req.session.userId, { except: req.sessionID });
   */
  destroyByUser(userId: unknown, options?: { except?: string }): Promise<number>;
  destroyByUser(userId: unknown, callback: ConnectCallback<number>): void;
  destroyByUser(
    userId: unknown,
    options: { except?: string } | undefined,
    callback: ConnectCallback<number>,
  ): void;

  /**
   * Resolves once the underlying store can serve, and rejects with the reason if it cannot in time. Await it before the
   * app listens. It takes no callback.
   */
  ready(options?: PingOptions): Promise<void>;

  /**
   * Checks that the underlying store can serve: for health checks. Resolves to the milliseconds that this took. It
   * takes no callback.
   * @example
   * app.get("/healthz", (_req, res, next) => store.ping().then(() => res.send("ok"), next));
   */
  ping(options?: PingOptions): Promise<number>;

  /** Returns the counters and the state of the underlying store. It takes no callback. */
  stats(): ReturnType<Store["stats"]>;

  /** Closes the underlying store. */
  close(): Promise<void>;
  close(callback: ConnectCallback | undefined): void;

  /** `close()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;

  /** Creates the session of a request that has none. express-session sets and calls it. */
  // biome-ignore lint/suspicious/noExplicitAny: of express-session
  generate: (req: any) => void;

  /** Destroys the session of a request, and creates a new one. express-session calls it. */
  // biome-ignore lint/suspicious/noExplicitAny: of express-session
  regenerate(req: any, callback: (error?: any) => any): void;

  /**
   * Does `get`, and returns a session with methods. It is part of express-session's store interface.
   *
   * Fails with `ERR_INVALID_OPTION` if `session({ store })` was never called with this store.
   */
  // biome-ignore lint/suspicious/noExplicitAny: of express-session
  load(sid: string, callback: (error: any, session?: any) => any): void;

  /** Turns the result of `get` into the session of a request. express-session calls it. */
  // biome-ignore lint/suspicious/noExplicitAny: of express-session
  createSession(req: any, session: any): any;
}
