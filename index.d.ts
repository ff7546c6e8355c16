/**
 * Session stores in Rust for Node.js, as classes that fit FluidAuth's `BaseSessionStore`.
 *
 * All times are milliseconds. Every method of a store returns a Promise. It rejects bad input with a
 * {@link SessionStoreError}. Constructors throw it. No method takes a callback: `create`, `get`, `update`, `touch` and
 * `delete` throw when they are given one, and the others reject.
 */

// As `lib.esnext.disposable` declares them. A reference to that would need TypeScript 5.2.
declare global {
  interface SymbolConstructor {
    readonly dispose: unique symbol;
    readonly asyncDispose: unique symbol;
  }

  interface Disposable {
    [Symbol.dispose](): void;
  }

  interface AsyncDisposable {
    [Symbol.asyncDispose](): PromiseLike<void>;
  }
}

export {
  type AppSession,
  type ConnectCallback,
  type ConnectSession,
  ConnectStore,
  type ConnectStoreOptions,
  type OwnedSession,
} from "./connect.js";

/** The fields that every session has. Extra fields are kept: name them in a store's type argument. */
export interface SessionData {
  /**
   * The id: a non-empty, well-formed string of at most 256 bytes as UTF-8. `get`, `touch` and `delete` of a longer one find
   * nothing, as a cookie may hold anything.
   */
  sessionId: string;
  /**
   * The user of the session, as the app's `serializeUser` returned it: any JSON value. It keeps its type, so `42` is not
   * `"42"`. `null` or absent means an anonymous visitor.
   */
  // biome-ignore lint/suspicious/noExplicitAny: FluidAuth declares string, but stores whatever serializeUser returns
  userId: any;
  /**
   * When the session ends, as ISO text. `create` and `update` take a `Date` as well, which comes back as text. To store
   * milliseconds since 1970, declare the field: `new MemoryStore<{ expires: number }>()`.
   */
  expires: string;
}

/** The names that `Fields` spells out. An index signature names nothing, or `Record` would hide `SessionData`. */
type Named<Fields> = keyof {
  [K in keyof Fields as string extends K ? never : number extends K ? never : K]: unknown;
};

/** A session as a store returns it: `SessionData` with the app's own fields in it. */
export type StoredSession<Fields extends object = object> = Fields & Omit<SessionData, Named<Fields>>;

/** A session as a store takes it: `expires` may also be a `Date`, which comes back as ISO text. */
export type SessionInput<Fields extends object = object> = Fields &
  Omit<SessionData, Named<Fields> | "userId" | "expires"> &
  ("userId" extends Named<Fields>
    ? unknown
    : {
        /** The user of the session: any JSON value, or nothing for an anonymous visitor. */
        // biome-ignore lint/suspicious/noExplicitAny: see SessionData.userId
        userId?: any;
      }) &
  ("expires" extends Named<Fields>
    ? unknown
    : {
        /** When the session ends. A `Date` comes back as ISO text. */
        expires: string | Date;
      });

/** Options that every store takes. */
export interface SessionStoreOptions {
  /**
   * The largest session, in bytes of its JSON text as UTF-8. A larger one is rejected with
   * `ERR_SESSION_TOO_LARGE`.
   * @default 1048576
   */
  maxSessionBytes?: number;
  /**
   * How many live sessions one user may have. `whenUserIsFull` says what happens beyond that.
   * @default no limit
   */
  maxSessionsPerUser?: number;
  /**
   * What happens when a user would get one more live session than `maxSessionsPerUser`:
   *
   * - `"end-oldest"`: the user's oldest session ends.
   * - `"reject"`: the call rejects with `ERR_TOO_MANY_SESSIONS`, and nothing changes. That concerns `create`, and an `update`
   *   that gives the session to this user. A session that the user has already can always be updated.
   *
   * Expired sessions do not count. Logins at the same moment never exceed the limit, from whatever thread or process. Of
   * `RedisStore` there are two exceptions. With `"end-oldest"` a user may be over the limit until the oldest session has ended.
   * In Redis Cluster with `"reject"`, all of more than `maxSessionsPerUser` logins at one moment may be refused, and an
   * `update` that changes the user may exceed the limit. Needs `maxSessionsPerUser`.
   * @default "end-oldest"
   */
  whenUserIsFull?: "end-oldest" | "reject";
  /**
   * Milliseconds after its creation at which a session ends at the latest, whatever `expires` says: no `touch`, `update`,
   * cookie or other process moves its end past that. `get` returns the earlier of the two in `expires`. All processes that
   * share a store give the same value.
   * @default no limit
   */
  maxLifetime?: number;
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
   * any of them is open. A later opener gives the same limits or leaves them out. A non-empty string.
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
   * How many bytes the store allocates for sessions at most, within 10 %: free space included, except some 150 kB that
   * an empty store takes. The allocator may hold more for a while where the sizes of sessions change. Makes room as
   * `maxSessions` does. With either of the two a session takes some 15 bytes more: they keep the order in which sessions go.
   * @default no limit
   */
  maxBytes?: number;
}

/** The calls that a store counts. `[Symbol.asyncDispose]`, `close` and `stats` are not among them. */
export type StoreCall =
  | "get"
  | "create"
  | "update"
  | "touch"
  | "delete"
  | "clean"
  | "getByUser"
  | "deleteByUser"
  | "size"
  /** One for each page of some hundred ids. */
  | "ids"
  /** One for each page of some hundred sessions. */
  | "sessions"
  | "clear"
  /** `ping` and `ready`. */
  | "ping";

/** How long calls took, as a Prometheus histogram has it. Times are milliseconds. */
export interface LatencyStats {
  /** How many calls were measured. */
  count: number;
  /** What they took together. */
  sum: number;
  /** How many of them took at most `le`. The bounds are the same in every store: 20 of them, from 0.001 to 2500. */
  buckets: { le: number; count: number }[];
}

/** The calls of one kind that this store object has begun. */
export interface CallStats {
  /** How many calls were begun. */
  count: number;
  /** How many of them were rejected, by code. */
  errors: Partial<Record<SessionStoreErrorCode, number>>;
  /**
   * From the call to the moment when its promise is settled, of those that were not rejected. One call in 64 is measured
   * of those that end at once: `get`, `create`, `update`, `touch` and `delete` of a `MemoryStore`, and `get` of a
   * `FileStore` or of a `RedisStore` with a cache. Of the others each is.
   */
  latency: LatencyStats;
}

/** What keeps a store from serving. */
export interface StoreProblem {
  /** The code of the error that calls reject with. */
  code: SessionStoreErrorCode;
  /** The kind of reason, of `ERR_STORE_UNAVAILABLE`. */
  reason?: UnavailableReason;
  /** What is wrong, for people. */
  message: string;
}

/** Options of `ready` and `ping`. */
export interface PingOptions {
  /**
   * Milliseconds to wait. From 1 to 2147483647.
   * @default 10000 for `ready`; for `ping` the store's `commandTimeout`
   */
  timeout?: number;
}

/** Counters of a store since it was opened. */
export interface StoreStats {
  /**
   * Whether the store can serve, as far as it is known without a call. Of a `RedisStore` `"connecting"` before the first
   * connection, `"degraded"` where some primaries of a cluster are not reached, and `"unavailable"` where none is. A
   * `FileStore` is `"unavailable"` if it cannot take another session. A `MemoryStore` is always `"ready"`.
   */
  state: "ready" | "connecting" | "degraded" | "unavailable";
  /** Why the state is not `"ready"`, if that is known. */
  problem: StoreProblem | null;
  /** Calls under way of this store object that wait for a disk or a server. */
  pending: number;
  /** The calls of this store object, by their names. The other counters are those of all threads of the process. */
  calls: Record<StoreCall, CallStats>;
  /** How many calls of this store object were rejected, by code. */
  errors: Partial<Record<SessionStoreErrorCode, number>>;
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

/** Counters of a {@link MemoryStore} since it was opened. */
export interface MemoryStoreStats extends StoreStats {
  /** Sessions held now, expired ones that await the next sweep included. */
  sessions: number;
  /** Bytes that they take, the store's own overhead included, within 10 %. This is what `maxBytes` limits. */
  bytes: number;
}

/** What FluidAuth's public property `db` holds: a read-only description of the store. */
export interface MemoryStoreDescription {
  /** The kind of store. */
  readonly type: "memory";
  /** The store's `name`, or `null`. */
  readonly name: string | null;
}

/** What FluidAuth's public property `db` holds: a read-only description of the store. */
export interface FileStoreDescription {
  /** The kind of store. */
  readonly type: "file";
  /** The store's folder: its absolute path, without symbolic links. */
  readonly path: string;
}

/** What FluidAuth's public property `db` holds: a read-only description of the store. */
export interface RedisStoreDescription {
  /** The kind of store. */
  readonly type: "redis";
  /** Which servers it has: one, those of a cluster, or one that sentinels name. */
  readonly mode: "single" | "cluster" | "sentinel";
  /** The prefix of its keys. */
  readonly prefix: string;
}

/** The description of any store. */
export type StoreDescription = MemoryStoreDescription | FileStoreDescription | RedisStoreDescription;

/** A session and its times. */
export interface SessionEntry<Fields extends object = object> {
  /** A fresh copy, as `get` returns it. */
  session: StoredSession<Fields>;
  /**
   * When `create` stored it. No `update` or `touch` changes that, and `native-store import` keeps that of an export. `null`
   * for a session in a {@link FileStore} that a version of this package without `maxLifetime` has written. From its next
   * write on, the time of that write counts.
   */
  createdAt: Date | null;
  /** When it ends: `session.expires`. */
  expiresAt: Date;
}

/** What every store does. No method calls another one, so that overriding `get` does not change `getByUser`. */
export interface SessionStore<Fields extends object = object> {
  /** A small description of the store; not the sessions. */
  readonly db: StoreDescription;

  /**
   * Stores a new session.
   *
   * Rejects with `ERR_SESSION_EXISTS` if a live session has its id (an expired one counts as absent),
   * `ERR_INVALID_SESSION`, `ERR_SESSION_TOO_LARGE`, or `ERR_STORE_FULL` where there is no room: in memory, where
   * room could only be made by ending the sessions of users for an anonymous visitor, or where it is larger than
   * `maxBytes`; in a file, where `maxBytes` or the disk is full. With `whenUserIsFull: "reject"` also with
   * `ERR_TOO_MANY_SESSIONS`.
   */
  create(session: SessionInput<Fields>): Promise<void>;

  /** A fresh copy of a live session, or `null` when it is absent or expired. Changing it changes nothing. */
  get(sessionId: string): Promise<StoredSession<Fields> | null>;

  /**
   * Replaces a live session. It never creates one, so that a request in flight cannot bring back a session that was
   * logged out. `session.sessionId` must equal `sessionId`. An absent session resolves as well.
   *
   * Rejects as `create` does, except with `ERR_SESSION_EXISTS`. It rejects with `ERR_TOO_MANY_SESSIONS` only if the session
   * gets another user.
   */
  update(sessionId: string, session: SessionInput<Fields>): Promise<void>;

  /**
   * Moves a session's expiry alone. `get` then returns the new one in `expires`, as a number if it was a number
   * and as ISO text otherwise.
   * @param expires A `Date`, its text, or milliseconds since 1970: not seconds, and not a duration.
   * @returns `true` if the session was live.
   */
  touch(sessionId: string, expires: string | number | Date): Promise<boolean>;

  /** Removes a session. An absent or expired id resolves as well, and at once where no server has to be asked. */
  delete(sessionId: string): Promise<void>;

  /** Removes what has expired, on a background thread. */
  clean(): Promise<void>;

  /**
   * The live sessions of a user, oldest first: "your devices".
   * @param userId As in the session: compared by JSON value and type, so `42` is not `"42"`. Not `null`.
   */
  getByUser(userId: unknown): Promise<StoredSession<Fields>[]>;

  /**
   * Ends the sessions of a user: "log out everywhere".
   * @param userId As for `getByUser`.
   * @param options.except The id of one session to keep: "log out everywhere else".
   * @returns How many live sessions it ended.
   * @example
   * await store.deleteByUser(user.id, { except: sessionId });
   */
  deleteByUser(userId: unknown, options?: { except?: string }): Promise<number>;

  /** How many sessions are live, counted on a background thread. */
  size(): Promise<number>;

  /**
   * The ids of the live sessions, in no order. The store may change meanwhile: a session that is there from
   * beginning to end is yielded exactly once.
   */
  ids(): AsyncIterableIterator<string>;

  /**
   * The live sessions with their times, in no order, or those of one user, oldest first. No store is told when a session
   * was used: see `ConnectStore.sessions`.
   *
   * The store may change meanwhile. A session that is there from beginning to end is given exactly once, as it was
   * when its page was read. One that is created or ended meanwhile is given at most once. No session is given after its
   * expiry.
   *
   * A page has some 256 sessions, and ends after 256 KiB. It is read when the loop asks for its first session. Between two
   * pages nothing is locked or open, and a `break` frees what is left. A {@link RedisStore} reads with `SCAN` and `GET`. It
   * remembers 64 bits of each id until the end, for at most 256 loops at once: beyond that the one that has rested longest
   * rejects with `ERR_STORE_BUSY`, as does one that has asked for no page for an hour. The sessions of a user are read at one moment, and kept off the V8 heap until the loop
   * has taken them.
   *
   * What cannot be read is left out, and the loop then ends with `ERR_STORE_CORRUPT`. With `userId`, a {@link FileStore}
   * yields nothing and rejects with it, as its `getByUser` does. A {@link RedisStore} passes over a record that does not
   * name the user in a form that it can read. Other errors are those of `ids`.
   * @param options.userId As for `getByUser`. `undefined` rejects with `ERR_INVALID_SESSION`, as `null` does: leave the
   * option out to list everybody.
   * @example
   * for await (const { session, createdAt } of store.sessions({ userId: 42 })) console.log(session.sessionId, createdAt);
   */
  sessions(options?: { userId: unknown }): AsyncIterableIterator<SessionEntry<Fields>>;

  /** Removes every session, on a background thread. */
  clear(): Promise<void>;

  /** Counters since the store was opened, and its state. It costs no look at the sessions, and asks no server. */
  stats(): Promise<StoreStats>;

  /**
   * Resolves once the store can serve. Rejects with the reason if it cannot when the time is over: see `ping`.
   */
  ready(options?: PingOptions): Promise<void>;

  /**
   * Checks that the store can serve, and resolves to the milliseconds that this took.
   *
   * - A `MemoryStore` always can.
   * - A `FileStore` waits for the writes that were begun before, and syncs its log, or takes the lock for writing where it
   *   has no log. It rejects with `ERR_STORE_FULL` if there is no room for another session, `ERR_STORE_IO` if the folder
   *   or the file cannot be used, and `ERR_STORE_TIMEOUT`. One that is `readOnly` looks whether it can be read.
   * - A `RedisStore` asks each primary for `PING` and `ROLE`. It waits for connections until the time is over, and then
   *   rejects with `ERR_STORE_UNAVAILABLE` and a `reason`, or with `ERR_STORE_TIMEOUT`. It changes no session. If the store
   *   refuses all calls because of its `secret`, it rejects with `ERR_INVALID_OPTION`.
   */
  ping(options?: PingOptions): Promise<number>;

  /**
   * Closes this store, when the writes that were begun before are done; calling it again does nothing. Later calls
   * of the other methods reject with `ERR_STORE_CLOSED`. The sessions of a named store live on while another store
   * of that name is open, those in a file for ever. A store that is never closed does not keep the process alive.
   */
  close(): Promise<void>;

  /** `close()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Sessions in native memory: off the V8 heap, swept in the background, shared by worker threads.
 *
 * The data is gone when the process ends. The class may be extended.
 *
 * @typeParam Fields The app's own session fields, for example `{ cart?: string[] }`. FluidAuth creates sessions
 * without them, so in a store for it they are optional.
 * @example
 * new Session({ secret, store: new MemoryStore() });
 */
export class MemoryStore<Fields extends object = object> {
  /**
   * Opens a store in native memory.
   *
   * @example
   * const store = new MemoryStore({ maxSessions: 100_000 });
   * @throws {SessionStoreError} `ERR_INVALID_OPTION`.
   * @see https://github.com/fluidauth/native-store/blob/main/docs/memory-store.md
   */
  constructor(options?: MemoryStoreOptions);

  readonly db: MemoryStoreDescription;
}

export interface MemoryStore<Fields extends object = object> extends SessionStore<Fields> {
  readonly db: MemoryStoreDescription;
  stats(): Promise<MemoryStoreStats>;
}

/** A `URL` of the scheme `file:`, such as `new URL("./sessions", import.meta.url)`. */
export interface FileUrl {
  /** `"file:"`. */
  readonly protocol: string;
  /** The whole URL. */
  readonly href: string;
  /** The path in it. */
  readonly pathname: string;
}

/** Options of {@link FileStore}. */
export interface FileStoreOptions extends SessionStoreOptions {
  /**
   * The store's folder, best outside of the release folder: a path, or a URL such as
   * `new URL("./sessions", import.meta.url)`. It is created with its parents if it is missing, for its owner alone. It must
   * be on a local disk (see `allowNetworkFileSystem`). The folder may be a symbolic link, the files in it may not. A second
   * opener in the same process gets the same store, and gives the same options or leaves them out.
   */
  path: string | FileUrl;
  /**
   * When the promise of a write resolves:
   * - `"commit"`: after `fdatasync`. The write survives a power loss. In Redis this is `appendfsync always`.
   * - `"everysec"`: once the write is in the redo log. It survives `kill -9` of the process. The log is synced about
   *   once a second, so a power loss or a crash of the operating system costs at most about a second of writes. In
   *   Redis this is `appendfsync everysec`.
   *
   * `"everysec"` is faster only while one process has the store, with any number of worker threads. While several
   * processes share the store, every write is synced, and so it is where there is no log: see
   * {@link FileStoreStats.log}. All openers in a process give the same value or leave it out.
   * @default "commit"
   */
  durability?: "commit" | "everysec";
  /**
   * Encrypts ids, users and contents in the file (XChaCha20-Poly1305; keys by HKDF-SHA-256, lookups by HMAC-SHA-256).
   * In a list the first encrypts and all decrypt, so that secrets can be rotated. A session is encrypted with the first
   * secret when it is next written. A session whose secret is not in the list is absent; `deleteByUser` ends it all
   * the same. A secret that has left the list opens the store until a sweep finds no session that needs it. 1 to 16
   * different secrets of at least 16 bytes each. They are used as they are (no password hashing), so use random bytes.
   * Whether a store is encrypted is fixed when it is created. `undefined` throws: leave the option out for none.
   * @default none: the sessions are not encrypted, and the file is readable for its owner alone
   */
  secret?: string | Uint8Array | readonly (string | Uint8Array)[];
  /**
   * How many bytes the data file may take, at least 1048576. When it is full, what has expired goes, and then
   * `create` and `update` reject with `ERR_STORE_FULL`; no live session is ended. What ends sessions always has room.
   * @default no limit but the disk and 64 GiB of address space
   */
  maxBytes?: number;
  /**
   * Milliseconds within which a call settles when the disk hangs, or another process that has the store open was stopped
   * in the midst of a write. The call then rejects with `ERR_STORE_TIMEOUT`. Its `outcome` is `"unknown"` if the write had
   * begun. Otherwise nothing has happened and nothing will. From 1 to 2147483647. Does not bound `backup` and `verify`.
   * @default 10000
   */
  commandTimeout?: number;
  /**
   * Opens a store that is there, such as a backup, and writes nothing: not the sessions, no seal for a new secret, and
   * no sweep. Writes reject with `ERR_STORE_IO`. It works on a read-only file system and without the right to write, as
   * long as no other process has the store open there: that is `ERR_STORE_LOCKED`. All openers in a process give the
   * same value.
   * @default false
   */
  readOnly?: boolean;
  /**
   * Opens a store on a network file system (NFS, SMB, Ceph, FUSE and others). If two machines use it at once, its
   * sessions are lost. Even with one machine, locks and `fsync` are only as good as the file system.
   * @default false: such a folder is refused with `ERR_STORE_IO`
   */
  allowNetworkFileSystem?: boolean;
}

/** The redo log of a {@link FileStore}, as this process uses it. */
export interface FileStoreLog {
  /**
   * `"exclusive"`: this process has the store to itself, and its writes go to the log first. `"shared"`: its writes go
   * to the data file. This is so while another process has the store open, and for a while after that.
   */
  mode: "exclusive" | "shared";
  /** Bytes in the log that are not in the data file yet. */
  usedBytes: number;
  /** Bytes that the log can hold. 0 while there is none. */
  sizeBytes: number;
}

/** Counters of a {@link FileStore}: those of this process since it opened the store. */
export interface FileStoreStats extends MemoryStoreStats {
  /** Bytes of the data file; what is free in it is used again, and it never shrinks. */
  fileBytes: number;
  /** The redo log, or `null` where this operating system or file system has none. */
  log: FileStoreLog | null;
  /** Bytes of the calls that wait for the disk. A call that would exceed `maxQueuedBytes` rejects with `ERR_STORE_BUSY`. */
  queuedBytes: number;
  /** The limit of `queuedBytes`. */
  maxQueuedBytes: number;
}

/** How far {@link FileStore.backup} has come, in bytes. */
export interface BackupProgress {
  /** Bytes that are copied. */
  copied: number;
  /** Bytes of the copy: an estimate until the end. */
  total: number;
}

/** How far {@link FileStore.verify} has come, in steps of no unit. */
export interface VerifyProgress {
  /** Steps that are done. */
  checked: number;
  /** All steps. */
  total: number;
}

/** What {@link FileStore.verify} saw. */
export interface Verification {
  /** Whether no problem was found. */
  ok: boolean;
  /** Sessions in the file, expired ones that await a sweep included. */
  sessions: number;
  /** Those of them that have expired. */
  expired: number;
  /** Sessions among them whose secret is not in the list. No other call counts them. */
  unreadable: number;
  /** Pages of the file. */
  pages: number;
  /** What is wrong, in sentences for people: the first 20, and how many more there are. */
  problems: string[];
}

/**
 * Sessions in a file, on LMDB: they survive deploys and crashes, and all processes and threads of a machine share
 * them. A write's promise resolves when it is on disk, unless the option `durability` says otherwise. A process that is
 * killed at any moment harms no other.
 *
 * The class may be extended.
 *
 * @typeParam Fields As for {@link MemoryStore}.
 * @example
 * new Session({ secret, store: new FileStore({ path: "./sessions" }) });
 */
export class FileStore<Fields extends object = object> {
  /**
   * Opens the store in a folder, or creates it.
   *
   * @example
   * const store = new FileStore({ path: "/var/lib/app/sessions" });
   * @throws {SessionStoreError} `ERR_INVALID_OPTION`, `ERR_STORE_LOCKED` (another container with the same PID has it
   * open), `ERR_STORE_CORRUPT` (damaged, not a store, or of a newer version), `ERR_STORE_IO` or `ERR_STORE_FULL`.
   * @see https://github.com/fluidauth/native-store/blob/main/docs/file-store.md
   */
  constructor(options: FileStoreOptions);

  readonly db: FileStoreDescription;

  /**
   * Copies the store into a new or empty folder, which then is a store: consistent as at one moment, and without the free
   * room of the original. Others can read and write during that. The file may grow until it ends.
   * @param path The folder of the copy.
   * @returns The bytes of the copy's data file.
   */
  backup(
    path: string | FileUrl,
    options?: { onProgress?: (progress: BackupProgress) => void },
  ): Promise<{ bytes: number }>;

  /**
   * Reads everything, changes nothing, and reports what is wrong: the pages, each session, and the indexes. Others
   * read and write meanwhile; the file may grow until it ends. If the store's folder was removed, moved or replaced
   * while it was open, that is the only problem.
   */
  verify(options?: { onProgress?: (progress: VerifyProgress) => void }): Promise<Verification>;
}

export interface FileStore<Fields extends object = object> extends SessionStore<Fields> {
  readonly db: FileStoreDescription;
  stats(): Promise<FileStoreStats>;
}

/** TLS options of a {@link RedisStore}, for `rediss://` and `valkeys://` URLs. Certificates and keys are PEM. */
export interface RedisTlsOptions {
  /**
   * The certificates of the authorities to trust.
   * @default those that Node trusts: `tls.getCACertificates("default")`, or before Node 22.15 `tls.rootCertificates`
   * and the file of `NODE_EXTRA_CA_CERTS`
   */
  ca?: string | Uint8Array | readonly (string | Uint8Array)[];
  /** The client's certificate, followed by those up to its authority, for servers that ask for one. Needs `key`. */
  cert?: string | Uint8Array;
  /** The private key of `cert`. */
  key?: string | Uint8Array;
  /**
   * The name that the servers' certificates must have.
   * @default the host of the URL, or the name that a node of a cluster announces
   */
  servername?: string;
  /**
   * `false` takes any certificate, so that whoever is on the way can read and change all. For tests.
   * @default true
   */
  rejectUnauthorized?: boolean;
}

/** Sentinels, and the servers that they watch. */
export interface RedisSentinelOptions {
  /**
   * The sentinels: `redis://host:26379`, with a user and a password if they ask for them; the port is 26379 if it is
   * left out. If one is `rediss://`, all must be, and the data servers are then reached by TLS too.
   */
  urls: readonly string[];
  /** The name by which the sentinels know the primary. */
  master: string;
  /** The user of the data's servers. Needs `password`. */
  username?: string;
  /** The password of the data's servers. */
  password?: string;
  /**
   * The number of the database there.
   * @default 0
   */
  database?: number;
}

/** How to log in to a server. */
export interface RedisCredentials {
  /**
   * The user.
   * @default the server's default user
   */
  username?: string;
  /** The user's password, or a token. */
  password: string;
}

/**
 * A near cache of a {@link RedisStore}. Redis tells it which sessions change (`CLIENT TRACKING`, RESP3).
 *
 * A logout on another machine is seen as soon as the network has brought Redis' message of it, and at the latest
 * `maxStaleness` milliseconds after Redis has carried it out, even if the network holds all messages back.
 *
 * It is emptied once a minute, as Redis sends no message of a `SWAPDB`. It is empty after each reconnect, failover and
 * `FLUSHALL`, and after the machine was suspended. `getByUser`, `deleteByUser`, `ids` and `sessions` never use it. With a
 * `secret` it holds plaintext. Where the server refuses `HELLO 3` or `CLIENT TRACKING`, on Windows, and in Bun and Deno the
 * store works without it: a process warning and `stats().cache.off` say why.
 */
export interface RedisCacheOptions {
  /**
   * How many bytes the cached sessions may take, within 10 %. Those of no user go first, then those least recently used.
   * From 1048576 (1 MiB).
   * @default 67108864 (64 MiB)
   */
  maxBytes?: number;
  /**
   * For how many milliseconds cached sessions may be used after the last proof that all invalidations have arrived.
   * With a partition of the network, a session that was ended elsewhere can be seen for so long. From 1 to 60000.
   * @default 1000
   */
  maxStaleness?: number;
}

/** Counters of a near cache since its store was opened. */
export interface RedisCacheStats {
  /** `get` calls that were answered in this process. */
  hits: number;
  /** `get` calls that asked the server. */
  misses: number;
  /** Cached sessions of which servers said that they have changed or ended. */
  invalidations: number;
  /** Sessions in the cache. */
  sessions: number;
  /** What they take, of `maxBytes`. */
  bytes: number;
  /** Why nothing is cached; `null` while the cache works, and until there is a connection. */
  off: string | null;
}

/** Options of {@link RedisStore}, apart from where the servers are. */
export interface RedisStoreSettings extends SessionStoreOptions {
  /**
   * With what all keys of the store begin, without `#`. Stores of one prefix are one store, and those of different ones
   * know nothing of each other, even if one begins with another. A non-empty string of at most 256 bytes.
   * @default "fluid:"
   */
  prefix?: string;
  /**
   * Encrypts ids, users and contents in Redis (XChaCha20-Poly1305; keys by HKDF-SHA-256, lookups by HMAC-SHA-256).
   * In a list the first encrypts and all decrypt, so that secrets can be rotated: a session is encrypted anew when it
   * is next written, and one whose secret has left the list is absent. 1 to 16 different ones of at least 16 bytes
   * each; random ones, as they are not stretched. All stores of a prefix have secrets in common, or have none: once one
   * with a secret was opened, those without reject all calls with `ERR_INVALID_OPTION`, from the next second on. It does
   * not find the plaintext sessions of before.
   *
   * What the keys are made from stands at `‹prefix›seal`. A process that is up puts it back on a server that lost it.
   * Who removes it while none is up has ended all sessions. When sessions end
   * is not encrypted, and anyone who can write to Redis can move it or bring back an older state of a session. `undefined`
   * throws: leave the option out for none.
   * @default none: sessions are JSON that any client can read
   */
  secret?: string | Uint8Array | readonly (string | Uint8Array)[];
  /**
   * Milliseconds within which a call ends, whatever the servers do: it is retried as long as that is safe, and then
   * rejects with `ERR_STORE_TIMEOUT` or `ERR_STORE_UNAVAILABLE`. Of calls that look at every session each step has as
   * many. From 1 to 30000.
   * @default 2000
   */
  commandTimeout?: number;
  /**
   * Milliseconds that an attempt to connect may take, TLS and login included; attempts go on for as long as the store
   * is open, with pauses that grow to two seconds. From 1 to 2147483647.
   * @default 2000
   */
  connectTimeout?: number;
  /**
   * How many replicas must have a write before its promise resolves, so that it outlives its primary (`WAIT`). If too few
   * have it after half of `commandTimeout`, the write rejects with `outcome: "unknown"`. Reads then have a connection of
   * their own, so that there are two to each primary. From 0 to 100.
   * @default 0
   */
  waitReplicas?: number;
  /**
   * Keeps sessions that were read in this process, so that the next `get` needs no round trip. Pays with sticky sessions
   * and `touchAfter`, as every write and every touch drops the session. See {@link RedisCacheOptions}.
   * @default no cache
   */
  cache?: RedisCacheOptions;
  /**
   * The name of the store's connections in `CLIENT LIST`, where the server lets it have one: 1 to 64 printable ASCII
   * characters without a space.
   * @default "native-store"
   */
  clientName?: string;
  /**
   * The user of the servers that have the data. Needs a password. Each part of the login is given in one place: here, in
   * the URLs or in `sentinel`.
   */
  username?: string;
  /** The password of the servers that have the data. */
  password?: string;
  /**
   * Gives the login of the servers that have the data. It is called at each connection that is made, also to each node of
   * a cluster, so that a token may expire. An attempt to connect waits for it within `connectTimeout`. Where it throws,
   * rejects or is late, the attempt fails, and is made again later. Calls that reject meanwhile have its message.
   *
   * It runs on the thread of the store, and does not keep the process alive. It excludes any other login but that of
   * sentinels.
   */
  credentials?: () => RedisCredentials | Promise<RedisCredentials>;
  /** For `rediss://` and `valkeys://` URLs alone. */
  tls?: RedisTlsOptions;
  /**
   * Milliseconds between two sweeps in the background, of which one process of all that use the prefix makes each; `0`
   * turns them off. The server itself ends expired sessions: what is swept is the lists of users' sessions.
   * @default 60000
   */
  sweepInterval?: number;
}

/** Options of {@link RedisStore}: exactly one of `url`, `cluster` and `sentinel`. */
export type RedisStoreOptions = RedisStoreSettings &
  (
    | {
        /**
         * One server: `redis://user:password@host:6379/0`, or `rediss://` for TLS; `valkey://` and `valkeys://` mean
         * the same. The login and the number of the database may be left out, and the port, which is 6379 then; a user
         * needs a password, but not the other way round. What is special in a URL is percent-encoded.
         *
         * Or a Unix socket: `unix://user:password@/run/redis.sock?db=0`; `redis+unix://` and `valkey+unix://` mean the
         * same. Not on Windows.
         */
        url: string;
        cluster?: never;
        sentinel?: never;
      }
    | {
        /**
         * Some nodes of a cluster, from which the others are learnt: URLs as `url` is one, with no database, and one
         * login and one protocol for all.
         */
        cluster: readonly string[];
        url?: never;
        sentinel?: never;
      }
    | {
        /** Servers of which sentinels say which one is the primary. */
        sentinel: RedisSentinelOptions;
        url?: never;
        cluster?: never;
      }
  );

/** The connections of a {@link RedisStore} to its primaries, apart from those of the event loop. */
export interface RedisStoreConnections {
  /** Connections that were made. All but the first to each server are reconnects. */
  connects: number;
  /** Those of them that were lost. */
  disconnects: number;
  /** Attempts to connect that failed. */
  failures: number;
  /** Requests that were sent again: after a lost connection, a redirect, or a refusal that passes. */
  retries: number;
}

/** Counters of a {@link RedisStore} since it was opened. How many sessions there are says `size()`. */
export interface RedisStoreStats extends StoreStats {
  /** Connections, reconnects and retries. */
  connections: RedisStoreConnections;
  /** Why the last background sweep of this process failed; `null` if none has, or the last one did not. */
  sweepError: string | null;
  /** The near cache, if the store has one. */
  cache?: RedisCacheStats;
}

/**
 * Sessions in Redis 6.2 or later, or Valkey, where all machines of an app share them: one server, one that sentinels
 * watch, or a cluster.
 *
 * The constructor does not wait for the network: the store connects in the background, and again whenever a connection
 * is lost. Until then calls wait, each until its `commandTimeout`. A call that changes something rejects with an error
 * whose `outcome` is `"unknown"` where it was sent and not answered in time: it may or may not have been carried out. So
 * does a `clear` or a `deleteByUser` that fails when some sessions are gone: call it again.
 *
 * Each store has two connections to its server, or to each primary of a cluster: one on a thread of the package, and one
 * for the calls on one session, driven by the event loop of the thread that made the store. With `waitReplicas`, on
 * Windows, and in Bun and Deno the package's thread makes all calls. `docs/redis-store.md` in the repository counts the
 * connections. Set `maxclients` high enough for the stores of all threads and processes.
 *
 * An expired session is absent by the clock of the app's machine, and removed by the server's: keep them in step. Where
 * they differ, a session ends by whichever of them is ahead.
 *
 * A session is at `‹prefix›sess#‹id›`: JSON text with the members `expires`, `created`, `user` and `session` (or
 * `sealed`, with a `secret`), which the server ends itself. The outer `expires` holds, in milliseconds; `created` is in
 * microseconds. The sessions of a user are named by a sorted set at `‹prefix›user#‹userId as JSON›`, which names every
 * live one, and may name some that have ended: they are passed over, and swept. The server ends it after the last session
 * that it can name. So a cluster needs no hash tags. The server must not evict keys (`maxmemory-policy noeviction`): a
 * user whose list is evicted keeps sessions that `getByUser` and `deleteByUser` do not find. `‹prefix›sweep`
 * says for as long as a `sweepInterval` that one process has begun the sweep. What others put where a session should be
 * is none: it is absent for all calls, and stays. `create` of that id does not overwrite it, and rejects with
 * `ERR_STORE_CORRUPT`; `delete` of that id removes a text. A session of which others have changed the text makes `get`
 * reject with `ERR_STORE_CORRUPT`. `getByUser` does so as well, or passes over it if its record cannot be read.
 *
 * `clean()` and the background sweep look at a sample of those lists, and go on while they find much that has ended, for
 * at most a hundredth of `sweepInterval`. What `stats` gives as `expired` is what they removed. `stats()` asks no server;
 * `size()`, `ids()`, `sessions()` and `clear()` go through the keys of all servers by SCAN. `delete` of an absent id asks the server.
 *
 * The class may be extended.
 *
 * @typeParam Fields As for {@link MemoryStore}.
 * @example
 * new Session({ secret, store: new RedisStore({ url: "redis://localhost:6379" }) });
 */
export class RedisStore<Fields extends object = object> {
  /**
   * Makes a store, and connects in the background. Calls wait for the connection, each until its `commandTimeout`.
   *
   * @example
   * const store = new RedisStore({ url: "redis://localhost:6379" });
   * @throws {SessionStoreError} `ERR_INVALID_OPTION`. Its message never shows a URL. Only the server knows the secrets of
   * the store: with others, every call rejects with that code.
   * @see https://github.com/fluidauth/native-store/blob/main/docs/redis-store.md
   */
  constructor(options: RedisStoreOptions);

  readonly db: RedisStoreDescription;
}

export interface RedisStore<Fields extends object = object> extends SessionStore<Fields> {
  readonly db: RedisStoreDescription;
  stats(): Promise<RedisStoreStats>;
}

/** What can go wrong, as {@link SessionStoreError.code}. */
export type SessionStoreErrorCode =
  /** `create`: a live session has the id. */
  | "ERR_SESSION_EXISTS"
  /** Not a valid session, session id or user id. The message names the field and what is accepted. */
  | "ERR_INVALID_SESSION"
  /** `ConnectStore.set`: a session of this id has ended, and what was given may be an old copy of it. */
  | "ERR_SESSION_ENDED"
  /** One more session of a user who has `maxSessionsPerUser`, with `whenUserIsFull: "reject"`. Nothing has changed. */
  | "ERR_TOO_MANY_SESSIONS"
  /** A session over `maxSessionBytes`. */
  | "ERR_SESSION_TOO_LARGE"
  /** An option that is unknown, missing or out of range, or an invalid argument. */
  | "ERR_INVALID_OPTION"
  /** A call after `close()`. */
  | "ERR_STORE_CLOSED"
  /** No room can be made, or none is left on the disk. */
  | "ERR_STORE_FULL"
  /** Too many writes are waiting. Nothing has happened: try again later. */
  | "ERR_STORE_BUSY"
  /** A file that is open where its locks cannot tell who has it. */
  | "ERR_STORE_LOCKED"
  /** The system refused to read or write a file: the message names it. */
  | "ERR_STORE_IO"
  /** The data is damaged, or of a newer version of this package. */
  | "ERR_STORE_CORRUPT"
  /** Redis, the disk or another process did not answer within `commandTimeout`. */
  | "ERR_STORE_TIMEOUT"
  /** Redis cannot be reached or refuses the command: the message says why. */
  | "ERR_STORE_UNAVAILABLE"
  /** The package itself cannot be loaded, so `require` and `import` throw it: the message says why. */
  | "ERR_ADDON_LOAD"
  /** A fault of this package: please report it. It says nothing about your data. */
  | "ERR_INTERNAL";

/** Why a {@link RedisStore} has not reached a server, or was refused. */
export type UnavailableReason =
  /** The server refuses the login or a command of it, or `credentials` gave none. */
  | "authentication"
  /** The name of the host has no address. */
  | "dns"
  /** No TLS: a certificate that is not trusted, or one side does not speak it. */
  | "tls"
  /** The server is a replica. */
  | "not-primary"
  /** Nothing listens at the address. */
  | "refused"
  /** The server loads its data, or the cluster is down. */
  | "loading"
  /** There was no answer in time. */
  | "timeout"
  /** Something else: the message says what. */
  | "other";

/** Every error that a store reports. Its message never contains a session's content. */
export class SessionStoreError extends Error {
  /**
   * Makes an error such as those of the stores, for tests and for stores of your own.
   *
   * @example
   * throw new SessionStoreError("ERR_STORE_FULL", "no room");
   * @see https://github.com/fluidauth/native-store/blob/main/docs/errors.md
   */
  constructor(code: SessionStoreErrorCode, message: string, options?: { cause?: unknown });
  /** Always `"SessionStoreError"`. */
  readonly name: "SessionStoreError";
  /** What went wrong: for programs, where `message` is for people. */
  readonly code: SessionStoreErrorCode;
  /**
   * `"unknown"` where a store cannot say whether a write was carried out: its `commandTimeout` was over after the write
   * had begun, too few replicas of Redis confirmed it, the disk failed at the page that completes a commit, or a partially
   * completed `clear` or `deleteByUser` failed. Absent from all other errors, after which nothing has changed.
   */
  readonly outcome?: "unknown";
  /** Of `ERR_STORE_CORRUPT` at the end of `sessions()`: how many sessions could not be read. All others were given. */
  readonly unreadable?: number;
  /** Of `ERR_STORE_UNAVAILABLE`: what kind of reason the message says. */
  readonly reason?: UnavailableReason;
}

/** What each event says. `docs/operating.md` in the repository says when there are which. */
export interface StoreEvent {
  /** The `db` of the store. */
  store: StoreDescription;
}

/** `native-store:session:end` */
export interface SessionEndEvent extends StoreEvent {
  /** Why the session ended. */
  reason: "deleted" | "revoked" | "replaced" | "evicted" | "expired" | "cleared";
  /** The first 16 hexadecimal digits of the SHA-256 of the session's id; `null` where `count` may be another than 1. */
  id: string | null;
  /** The user of the session; `null` for nobody, and where it is not known. */
  userId: unknown;
  /** How many sessions; `null` where it is not known: `clear()` of a {@link RedisStore}. */
  count: number | null;
}

/** `native-store:write:dropped`: `ConnectStore` has not stored a session or its new cookie, as it had ended. */
export interface WriteDroppedEvent extends StoreEvent {
  /** Why the session was not stored. */
  reason: "ended";
  /** The first 16 hexadecimal digits of the SHA-256 of the session's id. */
  id: string;
  /** The user of the session that was given. */
  userId: unknown;
}

/** `native-store:store:error`: a call has failed with one of the codes `ERR_STORE_…`, save `ERR_STORE_CLOSED`, or `ERR_INTERNAL`. */
export interface StoreErrorEvent extends StoreEvent {
  /** The call that failed. */
  call: StoreCall;
  /** The code of the error. */
  code: SessionStoreErrorCode;
  /** The kind of reason, of `ERR_STORE_UNAVAILABLE`. */
  reason?: UnavailableReason;
  /** `"unknown"` if the write may have happened. */
  outcome?: "unknown";
  /** What went wrong, for people. */
  message: string;
  /** What the call rejects with. */
  error: SessionStoreError;
}

/** `native-store:sweep`. All but `removed` and `error` is `null` if the sweep failed. */
export interface SweepEvent extends StoreEvent {
  /** When it began. */
  at: Date | null;
  /** How long it took, in milliseconds. */
  duration: number | null;
  /** How many sessions it removed. */
  removed: number;
  /** Why it failed. */
  error: string | null;
}

/** `native-store:redis:connect` */
export interface RedisConnectEvent extends StoreEvent {
  /** `host:port` */
  server: string;
}

/** `native-store:redis:disconnect` */
export interface RedisDisconnectEvent extends RedisConnectEvent {
  /** Why the connection ended. */
  message: string;
}

/** `native-store:redis:failover`: another server has become the primary. */
export interface RedisFailoverEvent extends StoreEvent {
  /** The primary of before, as `host:port`. */
  from: string;
  /** The new primary, as `host:port`. */
  to: string;
}

/** `native-store:file:drain`: the redo log was brought into the data file. */
export interface FileDrainEvent extends StoreEvent {
  /** Bytes of the log. */
  bytes: number;
  /** How long it took, in milliseconds. */
  duration: number;
}

/** `native-store:file:full`: a call was rejected with `ERR_STORE_FULL`. */
export interface FileFullEvent extends StoreEvent {
  /** The call that was rejected. */
  call: StoreCall;
  /** What is full, for people. */
  message: string;
}

/** The limits that all processes of a store should have in common. `null` for an option that is not given. */
export interface CommonLimits {
  /** The limit per user, or `null` without one. */
  maxSessionsPerUser: number | null;
  /** What a login above that limit does, or `null` without a limit. */
  whenUserIsFull: "end-oldest" | "reject" | null;
  /** The absolute lifetime in milliseconds, or `null` without one. */
  maxLifetime: number | null;
}

/** `native-store:limits:differ`: another process had the store open before, with other limits. */
export interface LimitsDifferEvent extends StoreEvent {
  /** The limits of this process. */
  own: CommonLimits;
  /** Those of the other process. */
  other: CommonLimits;
  /** The text of the process warning, for people. */
  message: string;
}

/** The channels of `node:diagnostics_channel` on which stores publish, and their payloads. */
export interface StoreEvents {
  /** Sessions have ended. */
  "native-store:session:end": SessionEndEvent;
  /** A session was not stored, as it had ended. */
  "native-store:write:dropped": WriteDroppedEvent;
  /** A call has failed. */
  "native-store:store:error": StoreErrorEvent;
  /** A sweep has ended. */
  "native-store:sweep": SweepEvent;
  /** A connection to a Redis server was made. */
  "native-store:redis:connect": RedisConnectEvent;
  /** A connection to a Redis server was lost. */
  "native-store:redis:disconnect": RedisDisconnectEvent;
  /** Another Redis server has become the primary. */
  "native-store:redis:failover": RedisFailoverEvent;
  /** The redo log was brought into the data file. */
  "native-store:file:drain": FileDrainEvent;
  /** A call was rejected, as the file or the disk is full. */
  "native-store:file:full": FileFullEvent;
  /** Another process had the store open before, with other limits. */
  "native-store:limits:differ": LimitsDifferEvent;
}

/** The part of FluidAuth's `Session` that {@link guardSession} relies on. */
export interface GuardableSession {
  /** The middleware behind `AuthService.session()`. */
  // biome-ignore lint/suspicious/noExplicitAny: Express's types, without depending on them
  manageSession(req: any, res: any, next: any): Promise<void>;
  /** Ends the session of a request. */
  // biome-ignore lint/suspicious/noExplicitAny: as above
  destroySession(req: any, res: any): Promise<void>;
  /** The name of the cookie. */
  sessionInfo: { name: string };
}

/**
 * Makes a FluidAuth `Session` survive stale and garbage cookies, and a store that fails. With `@fluidauth/express`
 * 1.1.10 on Express 4 one request with any of these ends the process, whatever the store.
 *
 * A cookie of a session that is gone, or that does not decrypt to a session id, is cleared. The request goes on as
 * anonymous. Every other error reaches `next`, once. It changes the session in place, and only once. Call it before
 * `AuthService.session()`, which binds the methods. `cookie-parser` must come before that, too.
 *
 * @returns The same session.
 * @throws {SessionStoreError} `ERR_INVALID_OPTION` if the argument is not a FluidAuth `Session`.
 * @example
 * const session = guardSession(new Session({ secret, store: new MemoryStore() }));
 */
export function guardSession<T extends GuardableSession>(session: T): T;
