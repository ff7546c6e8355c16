/// <reference lib="esnext.disposable" />

/**
 * Session stores in Rust for Node.js, as classes that fit FluidAuth's `BaseSessionStore`.
 *
 * All times are milliseconds. Every method of a store returns a Promise and reports bad input by
 * rejecting with a {@link SessionStoreError}; only a constructor throws.
 */

/** The fields that every session has. Extra fields are kept: name them in a store's type argument. */
export interface SessionData {
  /** Non-empty, well-formed, at most 256 bytes as UTF-8. Compared exactly. */
  sessionId: string;
  /**
   * Whom the session belongs to: whatever the app's `serializeUser` returned. Any JSON value; it comes back
   * with its type. `null` or absent means an anonymous visitor.
   */
  // biome-ignore lint/suspicious/noExplicitAny: FluidAuth declares string, but stores whatever serializeUser returns
  userId: any;
  /** When the session ends: anything that `new Date(expires)` makes a valid date. */
  expires: string;
}

/** The names that `Fields` spells out. An index signature names nothing, or `Record` would hide `SessionData`. */
type Named<Fields> = keyof {
  [K in keyof Fields as string extends K ? never : number extends K ? never : K]: unknown;
};

/** A session as a store returns it: `SessionData` with the app's own fields in it. */
export type StoredSession<Fields extends object = object> = Fields & Omit<SessionData, Named<Fields>>;

/** A session as a store takes it: `expires` may be a `Date` too, which comes back as its ISO text. */
export type SessionInput<Fields extends object = object> = Fields &
  Omit<SessionData, Named<Fields> | "userId" | "expires"> &
  // biome-ignore lint/suspicious/noExplicitAny: see SessionData.userId
  ("userId" extends Named<Fields> ? unknown : { userId?: any }) &
  ("expires" extends Named<Fields> ? unknown : { expires: string | Date });

/** Options that every store takes. */
export interface SessionStoreOptions {
  /**
   * The largest session, in bytes of its JSON text as UTF-8. A larger one is rejected with
   * `ERR_SESSION_TOO_LARGE`.
   * @default 1048576
   */
  maxSessionBytes?: number;
  /**
   * How many live sessions one user may have. The user's oldest ends when a new one would exceed it.
   * @default no limit
   */
  maxSessionsPerUser?: number;
  /**
   * Milliseconds between two background sweeps that remove expired sessions, on a thread of their own;
   * `0` turns them off.
   * @default 60000
   */
  sweepInterval?: number;
}

/** Options of {@link MemoryStore}. */
export interface MemoryStoreOptions extends SessionStoreOptions {
  /**
   * Stores of one name in one process are one store, whichever worker thread opens them. It lives as long as
   * any of them is open. Whoever opens it later gives the same limits or leaves them out. A non-empty string.
   * @default a store of its own
   */
  name?: string;
  /**
   * How many sessions the store holds. When it is full, expired sessions go first, then those of no user,
   * then the least recently used.
   * @default no limit
   */
  maxSessions?: number;
  /**
   * How many bytes the sessions may take, the store's own overhead included. Makes room as `maxSessions` does.
   * @default no limit
   */
  maxBytes?: number;
}

/** Counters of a store since it was opened. */
export interface StoreStats {
  /** Sessions held now, expired ones that await the next sweep included. */
  sessions: number;
  /** Bytes that they take, the store's own overhead included: an estimate, and what `maxBytes` limits. */
  bytes: number;
  /** `get` calls that found a live session. */
  hits: number;
  /** `get` calls that found none. */
  misses: number;
  /** Sessions created. */
  created: number;
  /** Sessions removed because they had expired. */
  expired: number;
  /** Live sessions removed to make room: `maxSessions`, `maxBytes` or `maxSessionsPerUser`. */
  evicted: number;
  /** The last sweep, by `clean()` or in the background; `null` before the first. */
  lastSweep: {
    /** When it began. */
    at: Date;
    /** How long it took, in milliseconds. */
    duration: number;
    /** How many sessions it removed. */
    removed: number;
  } | null;
}

/** What FluidAuth's public property `db` holds: a read-only description of the store. */
export interface StoreDescription {
  readonly type: "memory";
  /** The store's `name`, or `null`. */
  readonly name: string | null;
}

/**
 * Sessions in native memory: off the V8 heap, swept in the background, shared by worker threads.
 *
 * The data is gone when the process ends. The class may be extended; no method calls another one of it, so that
 * overriding `get` does not change `getByUser`.
 *
 * @typeParam Fields The app's own session fields, for example `{ cart?: string[] }`. FluidAuth creates sessions
 * without them, so in a store for it they are optional.
 * @example
 * new Session({ secret, store: new MemoryStore() });
 */
export class MemoryStore<Fields extends object = object> {
  /**
   * @throws {SessionStoreError} `ERR_INVALID_OPTION` for an unknown option (its likely spelling is named), a
   * value out of range, or a `name` that is open with other limits.
   */
  constructor(options?: MemoryStoreOptions);

  /** A small description of the store; not the sessions. */
  readonly db: StoreDescription;

  /**
   * Stores a new session.
   *
   * Rejects with `ERR_SESSION_EXISTS` if a live session has its id (an expired one counts as absent),
   * `ERR_INVALID_SESSION`, `ERR_SESSION_TOO_LARGE`, or `ERR_STORE_FULL` where room could only be made by
   * ending the sessions of users for an anonymous visitor, or where it is larger than `maxBytes`.
   */
  create(session: SessionInput<Fields>): Promise<void>;

  /** A fresh copy of a live session, or `null` when it is absent or expired. Changing it changes nothing. */
  get(sessionId: string): Promise<StoredSession<Fields> | null>;

  /**
   * Replaces a live session; never creates one, so that a request in flight cannot bring back a session that
   * was logged out meanwhile. `session.sessionId` must equal `sessionId`.
   *
   * Rejects as `create` does, save `ERR_SESSION_EXISTS`.
   */
  update(sessionId: string, session: SessionInput<Fields>): Promise<void>;

  /**
   * Moves a session's expiry alone. `get` then returns the new one in `expires`, as a number if it was a number
   * and as ISO text otherwise.
   * @param expires Anything that `new Date(expires)` makes a valid date.
   * @returns `true` if the session was live.
   */
  touch(sessionId: string, expires: string | number | Date): Promise<boolean>;

  /** Removes a session. An absent id resolves as well. */
  delete(sessionId: string): Promise<void>;

  /** Removes what has expired, on a background thread. */
  clean(): Promise<void>;

  /**
   * The live sessions of a user, oldest first.
   * @param userId As in the session: compared by JSON value and type, so `42` is not `"42"`. Not `null`.
   */
  getByUser(userId: unknown): Promise<StoredSession<Fields>[]>;

  /**
   * Ends the sessions of a user: "log out everywhere".
   * @param options.except The id of one session to keep: "log out everywhere else".
   * @returns How many live sessions it ended.
   */
  deleteByUser(userId: unknown, options?: { except?: string }): Promise<number>;

  /** How many sessions are live, counted on a background thread. */
  size(): Promise<number>;

  /**
   * The ids of the live sessions, in no order. The store may change meanwhile: a session that is there from
   * beginning to end is yielded exactly once.
   */
  ids(): AsyncIterableIterator<string>;

  /** Removes every session, on a background thread. */
  clear(): Promise<void>;

  /** Counters since the store was opened. */
  stats(): Promise<StoreStats>;

  /**
   * Closes this store; calling it again does nothing. Later calls of the other methods reject with
   * `ERR_STORE_CLOSED`. The sessions of a named store live on while another store of that name is open.
   * A store that is never closed does not keep the process alive.
   */
  close(): Promise<void>;

  /** `close()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/** What can go wrong, as {@link SessionStoreError.code}. */
export type SessionStoreErrorCode =
  /** `create`: a live session has the id. */
  | "ERR_SESSION_EXISTS"
  /** A session, an id or a user id that is none. The message names the field and what was expected. */
  | "ERR_INVALID_SESSION"
  /** A session over `maxSessionBytes`. */
  | "ERR_SESSION_TOO_LARGE"
  /** An option, or an argument that is none of a session's, that is unknown or out of range. */
  | "ERR_INVALID_OPTION"
  /** A call after `close()`. */
  | "ERR_STORE_CLOSED"
  /** No room can be made. */
  | "ERR_STORE_FULL"
  /** A record that cannot be read: a fault in this package or in the machine. */
  | "ERR_STORE_CORRUPT";

/** Every error that a store reports. Its message never contains a session's content. */
export class SessionStoreError extends Error {
  constructor(code: SessionStoreErrorCode, message: string, options?: { cause?: unknown });
  readonly name: "SessionStoreError";
  /** What went wrong: for programs, where `message` is for people. */
  readonly code: SessionStoreErrorCode;
}

/** The part of FluidAuth's `Session` that {@link guardSession} relies on. */
export interface GuardableSession {
  // biome-ignore lint/suspicious/noExplicitAny: Express's types, without depending on them
  manageSession(req: any, res: any, next: any): Promise<void>;
  // biome-ignore lint/suspicious/noExplicitAny: as above
  destroySession(req: any, res: any): Promise<void>;
  sessionInfo: { name: string };
}

/**
 * Makes a FluidAuth `Session` survive stale and garbage cookies, and a store that fails. With `@fluidauth/express`
 * 1.1.10 on Express 4 one request with any of these ends the process, whatever the store.
 *
 * A cookie of a session that is gone, or that does not decrypt to a session id, is cleared and the request goes on
 * as anonymous. Every other error reaches `next`, once. Changes the session in place, and only once. Call it before
 * `AuthService.session()`, which binds the methods.
 *
 * @returns The same session.
 * @throws {SessionStoreError} `ERR_INVALID_OPTION` if it is no FluidAuth `Session`.
 * @example
 * const session = guardSession(new Session({ secret, store: new MemoryStore() }));
 */
export function guardSession<T extends GuardableSession>(session: T): T;
