/**
 * The stores of this package for express-session and `@fastify/session`.
 *
 * All times are milliseconds. Methods take a callback as their last argument, and return a Promise where they are given
 * none. Only `sessions`, `ready`, `ping` and `stats` take no callback. An error is a `SessionStoreError`. express-session passes it to `next`.
 */

// @ts-ignore: any class where Node's types are not installed, as in an app on FluidAuth alone
import { EventEmitter } from "node:events";
import type { PingOptions, SessionStore } from "./index.js";

/** `never` for a type of no keys or of any keys, as that of a package that is not installed. */
type Installed<Type> = [keyof Type] extends [never] ? never : string extends keyof Type ? never : Type;

// @ts-ignore: may not be installed
type ExpressSession = Installed<import("express-session").SessionData>;
// @ts-ignore: may not be installed
type FastifySession = Installed<Parameters<import("@fastify/session").SessionStore["set"]>[1]>;

/**
 * The session of the framework that is installed: `SessionData` of express-session or `Session` of Fastify, with what your
 * app has declared in it. Of any fields if neither is installed.
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
   * Skips a write that would only move the expiry, and by less than so many **milliseconds**. That is a `touch`, or a `set`
   * that changes nothing (`resave: true`, and `@fastify/session` with every response). A session in use always keeps at
   * least half of its lifetime. A write that shortens the session is made. A `set` of a session that `all` or `getByUser`
   * gave, or of an object of the app, reads the stored session first.
   * @default 0: every write is made
   */
  touchAfter?: number;
  /**
   * Checks the `maxLifetime` of the store, in milliseconds: the constructor throws if the store has another one, or none.
   * The store ends each session that long after its creation at the latest. `get` gives the earlier end in
   * `cookie.expires`. A framework that renews the browser's cookie may give it a later end: then the session ends first.
   * @default whatever the store has
   */
  maxLifetime?: number;
  /**
   * The prefix of each id in the store, so that others can keep sessions in it too. `all`, `ids`, `length`, `clear`,
   * `getByUser` and `destroyByUser` are about the ids with this prefix alone. With a prefix, `clear` and `destroyByUser`
   * look at each session, and other calls wait until they have found all of them.
   * @default "": all of the store
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
export interface OwnedSession<Data extends object = AppSession> extends ConnectSessionEntry<Data> {
  /** The same as `expiresAt`. */
  expires: Date;
}

/** What a callback is given: an error, or what the Promise would resolve to. */
// biome-ignore lint/suspicious/noExplicitAny: as the frameworks declare theirs
export type ConnectCallback<Value = void> = (error: any, value?: Value) => void;

/**
 * The adapter for express-session and `@fastify/session`: it makes a store of this package one of theirs.
 *
 * A session that has ended does not come back by a request that loaded it before, in whichever process, and however it
 * ended (`destroy`, `destroyByUser`, `clear`, the store's own methods, `native-store revoke`, expiry). The `set` and the
 * `touch` of such a request are dropped without an error.
 *
 * `set` creates a session if the object is new:
 * - express-session has just generated it, also under an id that was used before.
 * - `@fastify/session` 11.1.2 or later has made it, and not from a session that it loaded. Likewise.
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
 * @typeParam Data The session. By default that of your framework, with what your app has declared in it.
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

  /** The store that it was made with. */
  readonly store: Store;

  /**
   * A fresh copy of a live session, or `null`, also for an id of more than 256 bytes, which no session can have. Its
   * cookie says when it ends, as the last `touch` has it.
   */
  get(sid: string): Promise<Data | null>;
  get(sid: string, callback: ConnectCallback<Data | null>): void;

  /**
   * Stores a session. `@fastify/session` saves a session also if the request has not changed it, and so does
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
   * not say what was loaded (`@fastify/session` before 11.1.2), and if the app overrides the `touch` of the store.
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

  /**
   * The live sessions of a user, oldest first: "your devices".
   *
   * Rejects with `ERR_INVALID_OPTION` without the option `userId`, as it would find nobody.
   * @param userId What the option `userId` returned, of the same type: `42` is not `"42"`.
   */
  getByUser(userId: unknown): Promise<OwnedSession<Data>[]>;
  getByUser(userId: unknown, callback: ConnectCallback<OwnedSession<Data>[]>): void;

  /**
   * Ends the sessions of a user: "log out everywhere". Without a prefix, those of others in the same store too.
   *
   * Rejects with `ERR_INVALID_OPTION` without the option `userId`, as it would end none.
   * @param userId As for `getByUser`.
   * @param options.except The id of one to keep: "log out everywhere else".
   * @returns How many it ended.
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
   * Resolves once the store that it was made with can serve, and rejects with the reason if it cannot in time. Await it
   * before the app listens. It takes no callback.
   */
  ready(options?: PingOptions): Promise<void>;

  /**
   * Checks that the store that it was made with can serve: for health checks. Resolves to the milliseconds that this took.
   * It takes no callback.
   * @example
   * app.get("/healthz", (_req, res, next) => store.ping().then(() => res.send("ok"), next));
   */
  ping(options?: PingOptions): Promise<number>;

  /** The counters and the state of the store that it was made with. It takes no callback. */
  stats(): ReturnType<Store["stats"]>;

  /** Closes the store that it was made with. */
  close(): Promise<void>;
  close(callback: ConnectCallback | undefined): void;

  /** `close()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;

  /** express-session sets and calls it: it makes the session of a request that has none. */
  // biome-ignore lint/suspicious/noExplicitAny: of express-session
  generate: (req: any) => void;

  /** express-session calls it: it destroys the session of a request, and makes a new one. */
  // biome-ignore lint/suspicious/noExplicitAny: of express-session
  regenerate(req: any, callback: (error?: any) => any): void;

  /**
   * express-session has it: `get`, as a session with methods.
   *
   * Fails with `ERR_INVALID_OPTION` if `session({ store })` was never called with this store.
   */
  // biome-ignore lint/suspicious/noExplicitAny: of express-session
  load(sid: string, callback: (error: any, session?: any) => any): void;

  /** express-session calls it: it makes what `get` gave the session of a request. */
  // biome-ignore lint/suspicious/noExplicitAny: of express-session
  createSession(req: any, session: any): any;
}
