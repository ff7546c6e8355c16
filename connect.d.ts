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
   * A write that changes nothing but the expiry, and moves that by less than so many milliseconds, is left out: `touch`,
   * and a `set` of what the store has already (`resave: true`; @fastify/session saves with every answer). For this a
   * `set` reads the session. Of half of its lifetime a session that is in use is always sure.
   * @default 0: every write is made
   */
  touchAfter?: number;
  /**
   * Stands before each id in the store, so that others may have sessions in it too: `all`, `ids`, `length`, `clear`
   * and what is done by user are about the ids with this prefix alone.
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

/** A session of a user. */
export interface OwnedSession<Data extends object = ConnectSession> {
  sid: string;
  /** When it ends if nothing moves that: its cookie's expiry, or what `ttl` made of it. */
  expires: Date;
  session: Data;
}

/** What a callback is given: an error, or what the Promise would resolve to. */
// biome-ignore lint/suspicious/noExplicitAny: as express-session and @fastify/session declare theirs
export type ConnectCallback<Value = void> = (error: any, value?: Value) => void;

/**
 * A store of this package as express-session and @fastify/session want one.
 *
 * A session that was ended does not come back: not by a request that loaded it before, in whichever process, and however
 * it was ended (`destroy`, `destroyByUser`, `clear`, the store's own methods, `native-store revoke`, expiry). Its `set`
 * and `touch` are dropped quietly. `set` creates a session only if express-session has just made it, or if this store
 * did not meet its id (in `get`, `set` or `destroy`) within the last hour, of which it remembers up to a million. So an
 * id that was destroyed is not to be used again.
 *
 * What a callback throws is an uncaught exception; it is never called twice. A Promise that is not looked at, as that of
 * `req.session.destroy()` without a callback, never ends the process. It extends express-session's `Store` where that is
 * installed, and else Node's `EventEmitter`; it emits nothing.
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

  /** A fresh copy of a live session, or `null`. Its cookie says when it ends, as the last `touch` has it. */
  get(sid: string): Promise<Data | null>;
  get(sid: string, callback: ConnectCallback<Data | null>): void;

  /**
   * Stores a session. Dropped quietly if the session was ended (see the class). Of a session of @fastify/session that
   * the request has not changed, and saves all the same, only the expiry is moved, as by `touch`: otherwise it would undo
   * what another request has saved meanwhile.
   *
   * Fails as `create` and `update` of the store do, and with `ERR_INVALID_OPTION` where `ttl` or `userId` return what
   * is none.
   */
  set(sid: string, session: Data): Promise<void>;
  set(sid: string, session: Data, callback: ConnectCallback | undefined): void;

  /**
   * Moves the expiry of a live session to that of its cookie, or by `ttl`, and stores the cookie if the request changed
   * anything else in it. The session's data is not written, and no session is created.
   *
   * A request that loaded or stored the session, and changed no more of the cookie than its expiry, never moves that
   * back, whatever others do at that moment: the store decides it in one call. Else the session is read first, as for
   * @fastify/session, whose objects say nothing of their origin, and for a store whose `touch` is the app's own.
   */
  touch(sid: string, session: Data): Promise<void>;
  touch(sid: string, session: Data, callback: ConnectCallback | undefined): void;

  /** Ends a session, if there is one. */
  destroy(sid: string): Promise<void>;
  destroy(sid: string, callback: ConnectCallback | undefined): void;

  /** All live sessions by their ids, in an object without a prototype. */
  all(): Promise<Record<string, Data>>;
  all(callback: ConnectCallback<Record<string, Data>>): void;

  /** The ids of all live sessions. */
  ids(): Promise<string[]>;
  ids(callback: ConnectCallback<string[]>): void;

  /** How many sessions are live. */
  length(): Promise<number>;
  length(callback: ConnectCallback<number>): void;

  /** Ends all sessions. */
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

  /** Of express-session: `get`, as a session with methods. */
  // biome-ignore lint/suspicious/noExplicitAny: of express-session
  load(sid: string, callback: (error: any, session?: any) => any): void;

  /** Of express-session: makes what `get` gave the session of a request. */
  // biome-ignore lint/suspicious/noExplicitAny: of express-session
  createSession(req: any, session: any): any;
}
