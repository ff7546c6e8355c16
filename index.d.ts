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

/** The fields that every session has. The app may add fields: name them in the store's type argument. */
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
   * The maximum number of live sessions of one user. `whenUserIsFull` says what happens beyond that.
   * @default no limit
   */
  maxSessionsPerUser?: number;
  /**
   * What happens when a user would get one more live session than `maxSessionsPerUser`:
   *
   * - `"end-oldest"`: the user's oldest session ends.
   * - `"reject"`: the call rejects with `ERR_TOO_MANY_SESSIONS`, and nothing changes. This applies to `create`, and to
   *   an `update` that moves a session to this user. A session that the user already has can always be updated.
   *
   * Expired sessions do not count. Concurrent logins never exceed the limit, from any thread or process. `RedisStore`
   * has two exceptions. With `"end-oldest"` a user may be over the limit until the oldest session has ended. In Redis
   * Cluster with `"reject"`, concurrent logins beyond the limit may all be refused, and an `update` that changes the
   * user may exceed the limit. Needs `maxSessionsPerUser`.
   * @default "end-oldest"
   */
  whenUserIsFull?: "end-oldest" | "reject";
  /**
   * The longest life of a session, in milliseconds from its creation. It ends then, whatever `expires` says: no
   * `touch`, `update`, cookie or other process can move its end past that. `get` returns the earlier of the two times
   * in `expires`. All processes that share a store must give the same value.
   * @default no limit
   */
  maxLifetime?: number;
  /**
   * The interval of the background sweep that removes expired sessions, in milliseconds. It has its own thread. `0`
   * turns it off.
   * @default 60000
   */
  sweepInterval?: number;
}

/** Options of {@link MemoryStore}. */
export interface MemoryStoreOptions extends SessionStoreOptions {
  /**
   * Stores with the same name share one store, in all threads of the process. It lives while any of them is open. Later
   * openers must pass the same limits or omit them. A non-empty string.
   * @default a store of its own
   */
  name?: string;
  /**
   * The maximum number of sessions. A full store removes expired sessions first, then sessions without a user, then the
   * least recently used.
   * @default no limit
   */
  maxSessions?: number;
  /**
   * The maximum number of bytes that the store allocates for sessions, within 10 %. That includes free space, but not
   * the 150 kB or so of an empty store. The allocator may hold more for a while when sessions change their size. Makes
   * room as `maxSessions` does. Either option takes some 15 bytes more per session, for the LRU order.
   * @default no limit
   */
  maxBytes?: number;
}

/** The calls that a store counts: all but `[Symbol.asyncDispose]`, `close` and `stats`. */
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

/** How long calls took, as a Prometheus histogram. Times are milliseconds. */
export interface LatencyStats {
  /** How many calls were measured. */
  count: number;
  /** The sum of their durations. */
  sum: number;
  /** How many of them took at most `le`. The bounds are the same in every store: 20 of them, from 0.001 to 2500. */
  buckets: { le: number; count: number }[];
}

/** The calls of one kind on this store object. */
export interface CallStats {
  /** How many calls were made, including pending ones. */
  count: number;
  /** How many of them were rejected, by code. */
  errors: Partial<Record<SessionStoreErrorCode, number>>;
  /**
   * From the call until its promise resolves. Rejected calls are not measured. Calls that complete synchronously are
   * sampled, one in 64: `get`, `create`, `update`, `touch` and `delete` of a `MemoryStore`, and `get` of a `FileStore`
   * or of a `RedisStore` with a cache. Every other call is measured.
   */
  latency: LatencyStats;
}

/** What keeps a store from serving. */
export interface StoreProblem {
  /** The code of the error that calls reject with. */
  code: SessionStoreErrorCode;
  /** The category of the reason. Only with `ERR_STORE_UNAVAILABLE`. */
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
   * Whether the store can serve, as far as it knows without a call. A `RedisStore` is `"connecting"` before its first
   * connection, `"degraded"` if it cannot reach some primaries of a cluster, and `"unavailable"` if it reaches none. A
   * `FileStore` is `"unavailable"` if it cannot take another session. A `MemoryStore` is always `"ready"`.
   */
  state: "ready" | "connecting" | "degraded" | "unavailable";
  /** Why the state is not `"ready"`, if the store knows. */
  problem: StoreProblem | null;
  /** Pending calls of this store object: those that wait for a disk or a server. */
  pending: number;
  /**
   * The calls of this store object, by name. The other counters of a `MemoryStore` or `FileStore` cover all threads of
   * the process, those of a `RedisStore` only this object.
   */
  calls: Record<StoreCall, CallStats>;
  /** How many calls of this store object were rejected, by code. */
  errors: Partial<Record<SessionStoreErrorCode, number>>;
  /** `get` calls that found a live session. */
  hits: number;
  /** `get` calls that found no live session. */
  misses: number;
  /** Sessions created. */
  created: number;
  /** Sessions removed because they had expired. */
  expired: number;
  /** Live sessions removed to make room: `maxSessions`, `maxBytes` or `maxSessionsPerUser`. */
  evicted: number;
  /** The last sweep, by `clean()` or in the background; `null` before the first. */
  lastSweep: {
    /** When it started. */
    at: Date;
    /** How long it took, in milliseconds. */
    duration: number;
    /** How many sessions it removed. */
    removed: number;
  } | null;
}

/** Counters of a {@link MemoryStore} since it was opened. */
export interface MemoryStoreStats extends StoreStats {
  /** Sessions held now, including expired ones that await the next sweep. */
  sessions: number;
  /** Bytes that they take with the store's overhead, within 10 %. `maxBytes` limits this figure. */
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
  /** One server, a cluster, or a primary that sentinels name. */
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
   * When `create` stored it. `update` and `touch` do not change it, and `native-store import` keeps the time in an
   * export. `null` for a session in a {@link FileStore} that was written by a version without `maxLifetime`. The next
   * write of such a session sets it to the time of that write.
   */
  createdAt: Date | null;
  /** When it ends: `session.expires`. */
  expiresAt: Date;
}

/** The methods of every store. No method calls another one, so overriding `get` does not change `getByUser`. */
export interface SessionStore<Fields extends object = object> {
  /** A small description of the store. It does not contain the sessions. */
  readonly db: StoreDescription;

  /**
   * Stores a new session.
   *
   * Rejects with:
   * - `ERR_SESSION_EXISTS` if a live session has its id. An expired session counts as absent.
   * - `ERR_INVALID_SESSION` or `ERR_SESSION_TOO_LARGE`.
   * - `ERR_STORE_FULL` if there is no room. In memory: if the session exceeds `maxBytes`, or if an anonymous session
   *   would evict a user's. In a file: if `maxBytes` is reached or the disk is full.
   * - `ERR_TOO_MANY_SESSIONS` with `whenUserIsFull: "reject"`.
   */
  create(session: SessionInput<Fields>): Promise<void>;

  /**
   * Returns a fresh copy of a live session, or `null` if it is absent or expired. Changing the copy does not change the
   * store.
   */
  get(sessionId: string): Promise<StoredSession<Fields> | null>;

  /**
   * Replaces a live session. It never creates one, so a request in flight cannot bring back a session that was logged
   * out. `session.sessionId` must equal `sessionId`. It resolves for an absent session, too.
   *
   * Rejects as `create` does, except with `ERR_SESSION_EXISTS`. It rejects with `ERR_TOO_MANY_SESSIONS` only if it
   * changes the user.
   */
  update(sessionId: string, session: SessionInput<Fields>): Promise<void>;

  /**
   * Moves a session's expiry and changes nothing else. `get` then returns it in `expires`: as a number if it was a
   * number, otherwise as ISO text.
   * @param expires A `Date`, its text, or milliseconds since 1970: not seconds, and not a duration.
   * @returns `true` if the session was live.
   */
  touch(sessionId: string, expires: string | number | Date): Promise<boolean>;

  /** Removes a session. It resolves for an absent or expired id, too: immediately, except in a `RedisStore`. */
  delete(sessionId: string): Promise<void>;

  /** Removes expired sessions, on a background thread. */
  clean(): Promise<void>;

  /**
   * Returns the live sessions of a user, oldest first: "your devices".
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

  /** Counts the live sessions, on a background thread. */
  size(): Promise<number>;

  /**
   * Iterates over the ids of the live sessions, in no order. The store may change during the loop: a session that lives
   * throughout it is yielded exactly once.
   */
  ids(): AsyncIterableIterator<string>;

  /**
   * Iterates over the live sessions with their times, in no order, or those of one user, oldest first. A store does not
   * know when a session was last used: see `ConnectStore.sessions`.
   *
   * The store may change during the loop. A session that lives throughout it is yielded exactly once, as it was when
   * its page was read. A session that is created or ended during the loop is yielded at most once. No session is
   * yielded after its expiry.
   *
   * A page has up to some 256 sessions or 256 KiB. It is read when the loop asks for its first session. Between two
   * pages nothing is locked or open, and a `break` frees the rest. A {@link RedisStore} reads with `SCAN` and `GET`. It
   * remembers 64 bits of each id until the end, for at most 256 concurrent loops: beyond that the loop that was idle
   * longest rejects with `ERR_STORE_BUSY`. So does a loop that was idle for an hour. The sessions of a user are read
   * atomically, and kept off the V8 heap until the loop takes them.
   *
   * The loop skips unreadable sessions and then ends with `ERR_STORE_CORRUPT`. With `userId`, a {@link FileStore}
   * yields nothing and rejects with that code, as its `getByUser` does. A {@link RedisStore} skips a record whose user
   * it cannot read. Other errors are those of `ids`.
   * @param options.userId As for `getByUser`. `undefined` rejects with `ERR_INVALID_SESSION`, as `null` does: leave the
   * option out to list everybody.
   * @example
   * for await (const { session, createdAt } of store.sessions({ userId: 42 })) console.log(session.sessionId, createdAt);
   */
  sessions(options?: { userId: unknown }): AsyncIterableIterator<SessionEntry<Fields>>;

  /** Removes every session, on a background thread. */
  clear(): Promise<void>;

  /**
   * Returns the state, and counters since the store was opened. It is cheap: it asks no server, and reads no session
   * unless a secret of a `FileStore` was left out.
   */
  stats(): Promise<StoreStats>;

  /** Resolves once the store can serve. Rejects with the reason if it still cannot after `timeout`: see `ping`. */
  ready(options?: PingOptions): Promise<void>;

  /**
   * Checks that the store can serve, and resolves to the milliseconds that this took.
   *
   * - A `MemoryStore` always can.
   * - A `FileStore` waits for earlier writes, and syncs its log, or takes the write lock if it has no log. It rejects
   *   with `ERR_STORE_FULL` if there is no room for another session, `ERR_STORE_IO` if the folder or the file cannot be
   *   used, and `ERR_STORE_TIMEOUT`. A `readOnly` store checks that it can be read.
   * - A `RedisStore` sends `PING` and `ROLE` to each primary. It waits for connections up to `timeout`, and then
   *   rejects with `ERR_STORE_UNAVAILABLE` and a `reason`, or with `ERR_STORE_TIMEOUT`. It changes no session. A user
   *   without the right to call `ROLE` gets only the `PING`, which a replica answers too. If the store refuses all
   *   calls because of its `secret`, it rejects with `ERR_INVALID_OPTION`.
   */
  ping(options?: PingOptions): Promise<number>;

  /**
   * Closes this store after all earlier writes. Idempotent. Later calls of other methods reject with
   * `ERR_STORE_CLOSED`. The sessions of a named store live on while another store of that name is open. Sessions in a
   * file or in Redis remain. An open store does not keep the process alive.
   */
  close(): Promise<void>;

  /** `close()`, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * Sessions in native memory: off the V8 heap, swept in the background, shared by worker threads.
 *
 * The sessions are lost when the process ends. The class may be extended.
 *
 * @typeParam Fields The app's own session fields, for example `{ cart?: string[] }`. FluidAuth creates sessions without
 * them, so declare them optional.
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
   * The store folder: a path, or a URL such as `new URL("./sessions", import.meta.url)`. Keep it outside of the release
   * folder. A missing folder is created with its parents, for its owner alone. It must be on a local disk (see
   * `allowNetworkFileSystem`). The folder may be a symbolic link, its files may not. A second opener in the same
   * process shares the store, and must pass the same options or omit them.
   */
  path: string | FileUrl;
  /**
   * When the promise of a write resolves:
   * - `"commit"`: after `fdatasync`. The write survives a power loss. In Redis this is `appendfsync always`.
   * - `"everysec"`: once the write is in the redo log. It survives `kill -9` of the process. A sync
   *   starts each second, so a power loss or a crash of the operating system costs the writes of about the last second.
   *   A slow disk adds the time that the sync takes. In Redis this is `appendfsync everysec`.
   *
   * `"everysec"` is faster only while one process has the store open, with any number of worker threads. Every write is
   * synced while several processes share the store, or without a log: see {@link FileStoreStats.log}. All openers in a
   * process must pass the same value or omit it.
   * @default "commit"
   */
  durability?: "commit" | "everysec";
  /**
   * Encrypts ids, users and contents in the file (XChaCha20-Poly1305; keys by HKDF-SHA-256, lookups by HMAC-SHA-256).
   * In a list the first encrypts and all decrypt, so that secrets can be rotated. A session is encrypted with the first
   * secret when it is next written. A session whose secret is not in the list is absent, but `deleteByUser` still ends
   * it. A secret that has left the list opens the store until a sweep finds no session that needs it. 1 to 16 different
   * secrets of at least 16 bytes each. They are not hashed as passwords are, so use random bytes. Whether a store is
   * encrypted is fixed when it is created. `undefined` throws: omit the option for no encryption.
   * @default none: the sessions are not encrypted, and only the owner of the file can read it
   */
  secret?: string | Uint8Array | readonly (string | Uint8Array)[];
  /**
   * The maximum size of the data file in bytes, at least 1048576. A full store removes expired sessions, and then
   * rejects `create` and `update` with `ERR_STORE_FULL`. It ends no live session. Calls that end sessions always have
   * room.
   * @default limited by the disk and by 64 GiB of address space
   */
  maxBytes?: number;
  /**
   * The deadline of a call in milliseconds, for when the disk hangs, or another process was stopped in the middle of a
   * write. The call then rejects with `ERR_STORE_TIMEOUT`. Its `outcome` is `"unknown"` if the write had started.
   * Otherwise the write is cancelled. From 1 to 2147483647. `size`, `ids`, `sessions`, `getByUser` and `clean` check it
   * only before they begin to read. It does not apply to `backup` and `verify`.
   * @default 10000
   */
  commandTimeout?: number;
  /**
   * Opens an existing store, such as a backup, and writes nothing: no session, no wrapped keys for a new secret, and no
   * sweep. Writes reject with `ERR_STORE_IO`. It works on a read-only file system and without write permission. There
   * it is refused with `ERR_STORE_LOCKED` while another process has the store open. All openers in a process must pass
   * the same value.
   * @default false
   */
  readOnly?: boolean;
  /**
   * Opens a store on a network file system (NFS, SMB, Ceph, FUSE and others). Two machines that use it at the same time
   * lose its sessions. Even with one machine, locks and `fsync` are only as good as the file system.
   * @default false: such a folder is refused with `ERR_STORE_IO`
   */
  allowNetworkFileSystem?: boolean;
}

/** The redo log of a {@link FileStore}, as this process uses it. */
export interface FileStoreLog {
  /**
   * `"exclusive"`: only this process has the store open, and its writes go to the log first. `"shared"`: its writes go
   * to the data file, while another process has the store open and for a while after that.
   */
  mode: "exclusive" | "shared";
  /** Bytes in the log that are not in the data file yet. */
  usedBytes: number;
  /** The capacity of the log in bytes. 0 while there is none. */
  sizeBytes: number;
}

/** Counters of a {@link FileStore} since this process opened it. */
export interface FileStoreStats extends MemoryStoreStats {
  /** The size of the data file in bytes. It never shrinks: the store reuses its free space. */
  fileBytes: number;
  /** The redo log, or `null` where this operating system or file system has none. */
  log: FileStoreLog | null;
  /**
   * Bytes of the writes that wait for the disk. A write that would exceed `maxQueuedBytes` rejects with
   * `ERR_STORE_BUSY`.
   */
  queuedBytes: number;
  /** The limit of `queuedBytes`. */
  maxQueuedBytes: number;
}

/** The progress of {@link FileStore.backup}. */
export interface BackupProgress {
  /** Bytes copied so far. */
  copied: number;
  /** The size of the copy: an estimate until the end. */
  total: number;
}

/** The progress of {@link FileStore.verify}, in steps without a unit. */
export interface VerifyProgress {
  /** Steps done so far. */
  checked: number;
  /** All steps. */
  total: number;
}

/** The result of {@link FileStore.verify}. */
export interface Verification {
  /** Whether no problem was found. */
  ok: boolean;
  /** Sessions in the file, including expired ones that await a sweep. */
  sessions: number;
  /** Those of them that have expired. */
  expired: number;
  /** Those whose secret is not in the list. No other call counts them. */
  unreadable: number;
  /** Pages of the file. */
  pages: number;
  /** Descriptions of the problems: the first 20, and how many more there are. */
  problems: string[];
}

/**
 * Sessions in a file, on LMDB. They survive deploys and crashes, and all processes and threads of a machine share them.
 * A write's promise resolves when the write is on disk, unless the option `durability` says otherwise. Killing a
 * process at any moment does not harm the others.
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
   * Copies the store into a new or empty folder. The copy is a store, too: a consistent snapshot without free pages.
   * The store remains readable and writable, and its file may grow until the copy is complete.
   * @param path The folder of the copy.
   * @returns The bytes of the copy's data file.
   */
  backup(
    path: string | FileUrl,
    options?: { onProgress?: (progress: BackupProgress) => void },
  ): Promise<{ bytes: number }>;

  /**
   * Checks the pages, each session and the indexes, and reports problems. It changes nothing. The store remains
   * readable and writable, and its file may grow until the check is complete. If the store folder was removed, moved or
   * replaced while it was open, that is the only problem reported.
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
   * `false` accepts any certificate, so anyone on the network path can read and change everything. For tests only.
   * @default true
   */
  rejectUnauthorized?: boolean;
}

/** Sentinels, and the servers that they watch. */
export interface RedisSentinelOptions {
  /**
   * The sentinels: `redis://host:26379`, with a user and a password if they need them. The default port is 26379. If
   * one is `rediss://`, all must be, and the data servers are then reached over TLS too.
   */
  urls: readonly string[];
  /** The name by which the sentinels know the primary. */
  master: string;
  /** The user on the data servers. Needs `password`. */
  username?: string;
  /** The password for the data servers. */
  password?: string;
  /**
   * The database number on the data servers.
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
 * A near cache of a {@link RedisStore}. Redis notifies it of changed sessions (`CLIENT TRACKING`, RESP3).
 *
 * A logout on another machine takes effect when Redis' invalidation message arrives. If the network holds messages
 * back, it takes effect at most `maxStaleness` milliseconds after Redis ran it.
 *
 * The cache is emptied once a minute, because Redis sends no message for a `SWAPDB`. It is also emptied by each
 * reconnect, failover and `FLUSHALL`, and after the machine was suspended. `getByUser`, `deleteByUser`, `ids` and
 * `sessions` never use it. With a `secret` it holds plaintext. The store works without a cache on Windows, in Bun and
 * Deno, and if the server refuses `HELLO 3` or `CLIENT TRACKING`. A process warning and `stats().cache.off` then say
 * why.
 */
export interface RedisCacheOptions {
  /**
   * The maximum bytes of the cached sessions, within 10 %. A full cache drops sessions without a user first, then the
   * least recently used. From 1048576 (1 MiB).
   * @default 67108864 (64 MiB)
   */
  maxBytes?: number;
  /**
   * How long cached sessions may be used after the last proof that all invalidations have arrived, in milliseconds.
   * During a network partition, a session that was ended elsewhere stays visible for that long. From 1 to 60000.
   * @default 1000
   */
  maxStaleness?: number;
}

/** Counters of a near cache since its store was opened. */
export interface RedisCacheStats {
  /** `get` calls that were answered from the cache. */
  hits: number;
  /** `get` calls that asked the server. */
  misses: number;
  /** Cached sessions that a server reported as changed or ended. */
  invalidations: number;
  /** Sessions in the cache. */
  sessions: number;
  /** Their bytes, which `maxBytes` limits. */
  bytes: number;
  /** Why nothing is cached. `null` while the cache works, and before the first connection. */
  off: string | null;
}

/** Options of {@link RedisStore}, except for the servers. */
export interface RedisStoreSettings extends SessionStoreOptions {
  /**
   * The prefix of all keys of the store, without `#`. Stores with the same prefix are one store. Stores with different
   * prefixes are separate, even if one prefix starts with the other. A non-empty string of at most 256 bytes.
   * @default "fluid:"
   */
  prefix?: string;
  /**
   * Encrypts ids, users and contents in Redis (XChaCha20-Poly1305; keys by HKDF-SHA-256, lookups by HMAC-SHA-256). In a
   * list the first encrypts and all decrypt, so that secrets can be rotated. A session is encrypted with the first
   * secret when it is next written. A session whose secret is not in the list is absent. 1 to 16 different secrets of
   * at least 16 bytes each. They are not hashed as passwords are, so use random bytes. All stores with a prefix must
   * share a secret, or have none. Within a second after a store with a secret was opened, stores without one reject all
   * calls with `ERR_INVALID_OPTION`. An encrypted store does not find earlier plaintext sessions.
   *
   * The wrapped keys are at `‹prefix›seal`. A running process restores them on a server that lost them. Removing them
   * while no process runs ends all sessions. The expiry of sessions is not encrypted, and anyone who can write to Redis
   * can change it or restore an older state of a session. `undefined` throws: omit the option for no encryption.
   * @default none: sessions are JSON that any client can read
   */
  secret?: string | Uint8Array | readonly (string | Uint8Array)[];
  /**
   * The deadline of a call in milliseconds, whatever the servers do. The call is retried while that is safe, and then
   * rejects with `ERR_STORE_TIMEOUT` or `ERR_STORE_UNAVAILABLE`. In calls that read every session it applies to each
   * step. From 1 to 30000.
   * @default 2000
   */
  commandTimeout?: number;
  /**
   * The deadline of an attempt to connect in milliseconds, including TLS and login. The store retries while it is open,
   * with a backoff of up to two seconds. From 1 to 2147483647.
   * @default 2000
   */
  connectTimeout?: number;
  /**
   * How many replicas must have a write before its promise resolves, so that it survives the loss of the primary
   * (`WAIT`). If too few have it after half of `commandTimeout`, the write rejects with `outcome: "unknown"`. Reads
   * then have their own connection, so each primary has two. From 0 to 100.
   * @default 0
   */
  waitReplicas?: number;
  /**
   * Caches the sessions that this process has read, so that the next `get` needs no round trip. It pays with sticky
   * sessions and `touchAfter`, because every write and touch drops the session from the cache. See
   * {@link RedisCacheOptions}.
   * @default no cache
   */
  cache?: RedisCacheOptions;
  /**
   * The name of the store's connections in `CLIENT LIST`, if the server allows one: 1 to 64 printable ASCII characters
   * without spaces.
   * @default "native-store"
   */
  clientName?: string;
  /**
   * The user on the data servers. Needs a password. Give each part of the login in one place: here, in the URLs or in
   * `sentinel`.
   */
  username?: string;
  /** The password for the data servers. */
  password?: string;
  /**
   * Returns the login for the data servers. The store calls it for each new connection, also to each node of a cluster,
   * so a token may expire. An attempt to connect waits for it up to `connectTimeout`. If it throws, rejects or is late,
   * the attempt fails and is retried. Until one succeeds, rejected calls carry its message.
   *
   * It runs on the thread that made the store, and does not keep the process alive. It cannot be combined with another
   * login, except that of the sentinels.
   */
  credentials?: () => RedisCredentials | Promise<RedisCredentials>;
  /** Only for `rediss://` and `valkeys://` URLs. */
  tls?: RedisTlsOptions;
  /**
   * The interval of the background sweep in milliseconds. Of all processes that use the prefix, one makes each sweep.
   * `0` turns it off. Redis itself removes expired sessions: the sweep removes their entries from the user index.
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
         * the same. The login and the database number are optional, and the default port is 6379. A user needs a
         * password, but a password needs no user. Percent-encode special characters.
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
         * Some nodes of a cluster, from which the store learns the others. URLs as in `url`, without a database, and
         * with the same login and protocol in all of them.
         */
        cluster: readonly string[];
        url?: never;
        sentinel?: never;
      }
    | {
        /** A primary that sentinels name. */
        sentinel: RedisSentinelOptions;
        url?: never;
        cluster?: never;
      }
  );

/** The worker connections of a {@link RedisStore} to its primaries. Event-loop connections are not counted. */
export interface RedisStoreConnections {
  /** Connections made. All but the first to each server are reconnects. */
  connects: number;
  /** Connections lost. */
  disconnects: number;
  /** Attempts to connect that failed. */
  failures: number;
  /** Requests sent again: after a lost connection, a redirect, or a temporary refusal. */
  retries: number;
}

/** Counters of a {@link RedisStore} since it was opened. For the number of sessions call `size()`. */
export interface RedisStoreStats extends StoreStats {
  /** Connections, reconnects and retries. */
  connections: RedisStoreConnections;
  /** Why the last background sweep of this process failed. `null` if it succeeded, or before the first sweep. */
  sweepError: string | null;
  /** The near cache, if the store has one. */
  cache?: RedisCacheStats;
}

/**
 * Sessions in Redis 6.2 or later, or Valkey, shared by all machines of an app: one server, a primary with sentinels, or
 * a cluster.
 *
 * The constructor does not wait for the network: the store connects, and reconnects, in the background. Calls wait for
 * a connection, each until its `commandTimeout`. If a write was sent and not answered in time, its error has
 * `outcome: "unknown"`: the write may or may not have happened. So has the error of a partially completed `clear` or
 * `deleteByUser`: call it again.
 *
 * Each store has two connections to its server, or to each primary of a cluster. The event loop of the thread that made
 * the store drives one of them, for single-session calls. A worker thread of the package drives the other. With
 * `waitReplicas`, on Windows, and in Bun and Deno the worker makes all calls. `docs/redis-store.md` in the repository
 * counts the connections. Set `maxclients` high enough for the stores of all threads and processes.
 *
 * The store compares expiry times with the clock of the app's machine, and the server removes expired sessions by its
 * own. Keep both clocks in sync. If they differ, a session ends by the one that is ahead.
 *
 * The keys:
 * - `‹prefix›sess#‹id›` holds a session: JSON text with the members `expires`, `created`, `user` and `session` (or
 *   `sealed`, with a `secret`). The outer `expires` counts, in milliseconds. `created` is in microseconds. The key has
 *   an expiry, so the server removes it.
 * - `‹prefix›user#‹userId as JSON›` is the user index: a sorted set that names every live session of a user. It may
 *   name ended sessions, which calls skip and the sweep removes. The server removes the set after the last session that
 *   it can name. A cluster needs no hash tags.
 * - `‹prefix›sweep` is the lock of the current sweep. It expires after a `sweepInterval`.
 *
 * The server must not evict keys (`maxmemory-policy noeviction`). If it evicts the index of a user, `getByUser` and
 * `deleteByUser` no longer find the sessions of that user.
 *
 * A foreign value under a session's key is not a session: it is absent for all calls, and stays. `create` of that id
 * does not overwrite it, and rejects with `ERR_STORE_CORRUPT`. `delete` of that id removes it if it is a string. If
 * another program has changed the text of a session, `get` rejects with `ERR_STORE_CORRUPT`. So does `getByUser`, which
 * skips a record that it cannot read at all.
 *
 * `clean()` and the background sweep check a sample of the user index. They continue while they find many ended
 * sessions, for at most a hundredth of `sweepInterval`. `expired` in `stats` counts what they removed. `size()`,
 * `ids()`, `sessions()` and `clear()` go through the keys of all servers by SCAN. `delete` of an absent id asks the
 * server.
 *
 * The class may be extended.
 *
 * @typeParam Fields As for {@link MemoryStore}.
 * @example
 * new Session({ secret, store: new RedisStore({ url: "redis://localhost:6379" }) });
 */
export class RedisStore<Fields extends object = object> {
  /**
   * Creates a store, and connects in the background. Calls wait for the connection, each until its `commandTimeout`.
   *
   * @example
   * const store = new RedisStore({ url: "redis://localhost:6379" });
   * @throws {SessionStoreError} `ERR_INVALID_OPTION`. Its message never shows a URL. The constructor cannot check
   * `secret` without the server: with a wrong one, every call rejects with that code.
   * @see https://github.com/fluidauth/native-store/blob/main/docs/redis-store.md
   */
  constructor(options: RedisStoreOptions);

  readonly db: RedisStoreDescription;
}

export interface RedisStore<Fields extends object = object> extends SessionStore<Fields> {
  readonly db: RedisStoreDescription;
  stats(): Promise<RedisStoreStats>;
}

/** The values of {@link SessionStoreError.code}. */
export type SessionStoreErrorCode =
  /** `create`: a live session has the id. */
  | "ERR_SESSION_EXISTS"
  /** Not a valid session, session id or user id. The message names the field and what is accepted. */
  | "ERR_INVALID_SESSION"
  /** `ConnectStore.set`: a session with this id has ended, and the object may be an old copy of it. */
  | "ERR_SESSION_ENDED"
  /** The user already has `maxSessionsPerUser` sessions, with `whenUserIsFull: "reject"`. Nothing has changed. */
  | "ERR_TOO_MANY_SESSIONS"
  /** A session over `maxSessionBytes`. */
  | "ERR_SESSION_TOO_LARGE"
  /** An option that is unknown, missing or out of range, or an invalid argument. */
  | "ERR_INVALID_OPTION"
  /** A call after `close()`. */
  | "ERR_STORE_CLOSED"
  /** The store or the disk is full. */
  | "ERR_STORE_FULL"
  /** Too many writes are waiting. Nothing has happened: try again later. */
  | "ERR_STORE_BUSY"
  /** Another process has the store open in a way that forbids this. Only `FileStore` has this error. */
  | "ERR_STORE_LOCKED"
  /** The system refused to read or write a file: the message names it. */
  | "ERR_STORE_IO"
  /** The data is damaged, or a newer version of this package wrote it. */
  | "ERR_STORE_CORRUPT"
  /** The call did not complete within `commandTimeout`: Redis, the disk or another process was too slow. */
  | "ERR_STORE_TIMEOUT"
  /** Redis cannot be reached or refuses the command: the message says why. */
  | "ERR_STORE_UNAVAILABLE"
  /** The package itself cannot be loaded, so `require` and `import` throw it: the message says why. */
  | "ERR_ADDON_LOAD"
  /** A bug in this package: please report it. It says nothing about your data. */
  | "ERR_INTERNAL";

/** Why a {@link RedisStore} could not reach a server, or was refused. */
export type UnavailableReason =
  /** The server refuses the login or a command of this user, or `credentials` failed. */
  | "authentication"
  /** The host name does not resolve. */
  | "dns"
  /** TLS failed: the certificate is not trusted, or one side does not use TLS. */
  | "tls"
  /** The server is a replica. */
  | "not-primary"
  /** Nothing listens at the address. */
  | "refused"
  /** The server loads its data, or the cluster is down. */
  | "loading"
  /** The server did not answer in time. */
  | "timeout"
  /** Something else: the message says what. */
  | "other";

/** The error class of all stores. Its message never contains session data. */
export class SessionStoreError extends Error {
  /**
   * Creates an error like those of the stores, for tests and for your own stores.
   *
   * @example
   * throw new SessionStoreError("ERR_STORE_FULL", "no room");
   * @see https://github.com/fluidauth/native-store/blob/main/docs/errors.md
   */
  constructor(code: SessionStoreErrorCode, message: string, options?: { cause?: unknown });
  /** Always `"SessionStoreError"`. */
  readonly name: "SessionStoreError";
  /** What went wrong, for programs. `message` is for people. */
  readonly code: SessionStoreErrorCode;
  /**
   * `"unknown"` if the write may or may not have happened:
   * - It had started when `commandTimeout` passed.
   * - Too few replicas of Redis confirmed it.
   * - The disk failed at the page that completes a commit.
   * - A `clear` or `deleteByUser` failed when it was partially complete.
   *
   * After any other error nothing has changed.
   */
  readonly outcome?: "unknown";
  /** How many sessions `sessions()` could not read. It yielded all others. Only with `ERR_STORE_CORRUPT`. */
  readonly unreadable?: number;
  /** The category of the reason in the message. Only with `ERR_STORE_UNAVAILABLE`. */
  readonly reason?: UnavailableReason;
}

/** The field of every event. `docs/operating.md` in the repository says when a store publishes which event. */
export interface StoreEvent {
  /** The `db` of the store. */
  store: StoreDescription;
}

/** `native-store:session:end` */
export interface SessionEndEvent extends StoreEvent {
  /** Why the session ended. */
  reason: "deleted" | "revoked" | "replaced" | "evicted" | "expired" | "cleared";
  /** The first 16 hexadecimal digits of the SHA-256 of the session's id. `null` if `count` may differ from 1. */
  id: string | null;
  /** The user of the session. `null` if there is none, or the store does not know it. */
  userId: unknown;
  /** How many sessions. `null` if the store does not know: `clear()` of a {@link RedisStore}. */
  count: number | null;
}

/**
 * `native-store:write:dropped`: `ConnectStore` did not store a session or its new cookie, because the session had
 * ended.
 */
export interface WriteDroppedEvent extends StoreEvent {
  /** Why the session was not stored. */
  reason: "ended";
  /** The first 16 hexadecimal digits of the SHA-256 of the session's id. */
  id: string;
  /** The user in the dropped session. */
  userId: unknown;
}

/**
 * `native-store:store:error`: a call failed with `ERR_INTERNAL` or an `ERR_STORE_…` code, except `ERR_STORE_CLOSED`.
 */
export interface StoreErrorEvent extends StoreEvent {
  /** The call that failed. */
  call: StoreCall;
  /** The code of the error. */
  code: SessionStoreErrorCode;
  /** The category of the reason. Only with `ERR_STORE_UNAVAILABLE`. */
  reason?: UnavailableReason;
  /** `"unknown"` if the write may have happened. */
  outcome?: "unknown";
  /** What went wrong, for people. */
  message: string;
  /** The error that the call rejects with. */
  error: SessionStoreError;
}

/** `native-store:sweep`. After a failed sweep `at` and `duration` are `null`. */
export interface SweepEvent extends StoreEvent {
  /** When it started. */
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
  /** The previous primary, as `host:port`. */
  from: string;
  /** The new primary, as `host:port`. */
  to: string;
}

/** `native-store:file:drain`: the redo log was applied to the data file. */
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

/** The limits that all processes of a store should share. `null` for an option that is not set. */
export interface CommonLimits {
  /** The maximum number of sessions per user. */
  maxSessionsPerUser: number | null;
  /** What happens to a login beyond that limit. */
  whenUserIsFull: "end-oldest" | "reject" | null;
  /** The absolute lifetime in milliseconds. */
  maxLifetime: number | null;
}

/** `native-store:limits:differ`: another process had the store open before, with other limits. */
export interface LimitsDifferEvent extends StoreEvent {
  /** The limits of this process. */
  own: CommonLimits;
  /** The limits of the other process. */
  other: CommonLimits;
  /** The text of the process warning, for people. */
  message: string;
}

/** The channels of `node:diagnostics_channel` on which stores publish, and their payloads. */
export interface StoreEvents {
  /** Sessions have ended. */
  "native-store:session:end": SessionEndEvent;
  /** A session was not stored, because it had ended. */
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
  /** The redo log was applied to the data file. */
  "native-store:file:drain": FileDrainEvent;
  /** A call was rejected, because the file or the disk is full. */
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
