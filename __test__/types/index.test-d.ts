import {
  type BackupProgress,
  FileStore,
  type FileStoreLog,
  type FileStoreStats,
  type GuardableSession,
  guardSession,
  MemoryStore,
  type RedisCacheStats,
  RedisStore,
  type RedisStoreStats,
  type SessionInput,
  type SessionStore,
  SessionStoreError,
  type SessionStoreErrorCode,
  type StoredSession,
  type StoreEvents,
  type StoreStats,
  type UnavailableReason,
  type Verification,
} from "@fluidauth/native-store";
import { expectAssignable, expectError, expectNotAssignable, expectType } from "tsd";

const sessionId = "an id";
const expires = "2030-01-01T00:00:00.000Z";

// A store without fields of the app's own.
const store = new MemoryStore();
export async function plain() {
  expectType<MemoryStore<object>>(store);
  expectType<Promise<void>>(store.create({ sessionId, userId: "ada", expires }));
  expectType<Promise<void>>(store.update(sessionId, { sessionId, expires }));
  expectType<Promise<boolean>>(store.touch(sessionId, Date.now()));
  expectType<Promise<void>>(store.delete(sessionId));
  expectType<Promise<void>>(store.clean());
  expectType<Promise<number>>(store.size());
  expectType<Promise<void>>(store.clear());
  expectType<Promise<void>>(store.close());

  const plain = await store.get(sessionId);
  if (plain !== null) {
    expectType<string>(plain.sessionId);
    expectType<string>(plain.expires);
    // biome-ignore lint/suspicious/noExplicitAny: it is what the test is about
    expectType<any>(plain.userId);
    expectError(plain.cart);
    // What `get` gives, `update` takes.
    expectType<Promise<void>>(store.update(sessionId, plain));
  }
}

// `expires` may go in as a Date, and comes back as text.
export async function times() {
  expectType<Promise<void>>(store.create({ sessionId, expires: new Date() }));
  expectError(store.create({ sessionId, expires: true }));
  expectError(store.create({ sessionId }));
  expectError(store.create({ expires }));
  for (const time of [expires, 0, new Date()]) expectType<Promise<boolean>>(store.touch(sessionId, time));
}

// Fields of the app's own.
export async function fields() {
  const carts = new MemoryStore<{ cart: string[]; note?: string }>();
  expectType<Promise<void>>(carts.create({ sessionId, expires, cart: [] }));
  expectError(carts.create({ sessionId, expires }));
  expectError(carts.create({ sessionId, expires, cart: [1] }));
  expectError(carts.create({ sessionId, expires, cart: [], nota: "" }));
  const filled = await carts.get(sessionId);
  expectType<string[] | undefined>(filled?.cart);
  expectType<string | undefined>(filled?.note);
  expectType<string | undefined>(filled?.sessionId);
  for (const session of await carts.getByUser(42)) expectType<string[]>(session.cart);
}

// A type for `userId`, or another for `expires`.
export async function types() {
  const numbered = new MemoryStore<{ userId: number }>();
  expectType<number | undefined>((await numbered.get(sessionId))?.userId);
  expectType<Promise<void>>(numbered.create({ sessionId, userId: 42, expires: new Date() }));
  expectError(numbered.create({ sessionId, userId: "42", expires }));
  expectError(numbered.create({ sessionId, expires }));
  const timed = new MemoryStore<{ expires: number }>();
  expectType<number | undefined>((await timed.get(sessionId))?.expires);
  expectType<Promise<void>>(timed.create({ sessionId, expires: 0 }));
}

// Fields of any name leave those of every session as they are.
export async function anyFields() {
  expectAssignable<{ sessionId: string; expires: string }>({} as StoredSession<Record<string, unknown>>);
  expectAssignable<SessionInput<Record<string, unknown>>>({ sessionId, expires: new Date(), cart: [] });
  expectNotAssignable<SessionInput<Record<string, unknown>>>({ cart: [] });
  expectError(new MemoryStore<string>());
}

// Users.
export async function users() {
  expectType<Promise<number>>(store.deleteByUser({ tenant: 1, id: 2 }));
  expectType<Promise<number>>(store.deleteByUser("ada", { except: sessionId }));
  expectError(store.deleteByUser("ada", sessionId));
  expectError(store.deleteByUser("ada", { exept: sessionId }));
}

// Iteration and disposal.
export async function iteration() {
  expectType<AsyncIterableIterator<string>>(store.ids());
  for await (const id of store.ids()) expectType<string>(id);
  for await (const { session, createdAt, expiresAt } of store.sessions()) {
    expectType<string>(session.sessionId);
    expectType<Date | null>(createdAt);
    expectType<Date>(expiresAt);
  }
  store.sessions({ userId: 42 });
  expectError(store.sessions({}));
  expectError(store.sessions({ user: 42 }));
  expectError(store.sessions(42));
  expectType<Promise<void>>(store[Symbol.asyncDispose]());
  expectAssignable<AsyncDisposable>(store);
}

// The description, and counters.
export async function description() {
  expectAssignable<{ readonly type: "memory"; readonly name: string | null }>(store.db);
  const stats: StoreStats = await store.stats();
  expectType<number>((await store.stats()).sessions);
  expectType<number>(stats.evicted);
  expectError(stats.log);
  expectType<{ at: Date; duration: number; removed: number } | null>(stats.lastSweep);
}

// How it is, and what happens in it.
export async function operating() {
  expectType<Promise<void>>(store.ready());
  expectType<Promise<number>>(store.ping({ timeout: 100 }));
  expectError(store.ping({ timeOut: 100 }));
  const { state, problem, calls, errors } = await store.stats();
  expectType<"ready" | "connecting" | "degraded" | "unavailable">(state);
  expectType<UnavailableReason | undefined>(problem?.reason);
  expectType<number | undefined>(errors.ERR_STORE_TIMEOUT);
  expectType<{ le: number; count: number }[]>(calls.get.latency.buckets);
  expectError(calls.close);
  const hear = ({ reason, id, count }: StoreEvents["native-store:session:end"]) => [reason, id, count];
  expectType<(string | number | null)[]>(
    hear({ store: store.db, reason: "expired", id: null, userId: 1, count: 2 }),
  );
}

// Options.
export async function options() {
  new MemoryStore({});
  new MemoryStore({
    name: "web",
    maxSessions: 1,
    maxBytes: 1,
    maxSessionBytes: 1,
    maxSessionsPerUser: 1,
    whenUserIsFull: "end-oldest",
    maxLifetime: 1,
    sweepInterval: 0,
  });
  expectError(new MemoryStore(null));
  expectError(new MemoryStore({ ttl: 60 }));
  expectError(new MemoryStore({ maxSessions: "100" }));
  expectError(new MemoryStore({ name: null }));
}

// A store in a file.
export async function files() {
  const path = "./sessions";
  const files = new FileStore<{ cart?: string[] }>({ path });
  expectAssignable<{ readonly type: "file"; readonly path: string }>(files.db);
  expectType<string[] | undefined>((await files.get(sessionId))?.cart);
  expectType<Promise<void>>(files.create({ sessionId, userId: 42, expires, cart: [] }));
  expectError(files.create({ sessionId, expires, cart: [1] }));
  expectType<FileStoreStats>(await files.stats());
  expectType<number>((await files.stats()).fileBytes);
  const { log } = await files.stats();
  expectType<FileStoreLog | null>(log);
  expectType<"exclusive" | "shared" | undefined>(log?.mode);
  expectType<number | undefined>(log?.usedBytes);
  expectType<number | undefined>(log?.sizeBytes);
  expectType<{ bytes: number }>(await files.backup("./copy"));
  await files.backup("./copy", { onProgress: (progress) => expectType<BackupProgress>(progress) });
  expectType<Verification>(await files.verify({ onProgress: ({ checked, total }) => checked / total }));
  expectError(files.backup());
  expectError(files.verify({ progress: () => {} }));
  expectError(new MemoryStore().backup("./copy"));

  new FileStore({ path, readOnly: true, allowNetworkFileSystem: false });
  new FileStore({ path, durability: "commit", maxBytes: 2 ** 30, maxSessionsPerUser: 3, sweepInterval: 0 });
  new FileStore({ path, maxSessionsPerUser: 3, whenUserIsFull: "reject" });
  expectError(new FileStore({ path, maxSessionsPerUser: 3, whenUserIsFull: "evict" }));
  new FileStore({ path, durability: "everysec" });
  for (const secret of ["a", new Uint8Array(32), ["a", new Uint8Array(32)] as const]) {
    new FileStore({ path, secret });
  }
  expectError(new FileStore());
  expectError(new FileStore({}));
  expectError(new FileStore({ path: new Uint8Array(32) }));
  expectError(new FileStore({ path, durability: "always" }));
  expectError(new FileStore({ path, durability: true }));
  expectError(new FileStore({ path, secret: 42 }));
  expectError(new FileStore({ path, maxSessions: 1 }));
}

// A store in Redis.
export async function redis() {
  const url = "redis://localhost";
  const sessions = new RedisStore<{ cart?: string[] }>({ url });
  expectType<"redis">(sessions.db.type);
  expectType<"single" | "cluster" | "sentinel">(sessions.db.mode);
  expectType<string>(sessions.db.prefix);
  expectType<string[] | undefined>((await sessions.get(sessionId))?.cart);
  expectType<RedisStoreStats>(await sessions.stats());
  expectError((await sessions.stats()).sessions);
  expectType<RedisCacheStats | undefined>((await sessions.stats()).cache);
  new RedisStore({ url, cache: {} });
  new RedisStore({ url, cache: { maxBytes: 2 ** 20, maxStaleness: 500 } });
  expectError(new RedisStore({ url, cache: true }));
  expectError(new RedisStore({ url, cache: { maxAge: 1 } }));
  new RedisStore({
    cluster: [url],
    prefix: "app:",
    secret: ["a", new Uint8Array(32)] as const,
    waitReplicas: 1,
  });
  new RedisStore({ sentinel: { urls: [url], master: "name", username: "u", password: "p", database: 1 } });
  new RedisStore({
    url,
    tls: { ca: ["", new Uint8Array()], cert: "", key: "", servername: "", rejectUnauthorized: false },
  });
  new RedisStore({ url, commandTimeout: 500, connectTimeout: 500, maxSessionsPerUser: 3, sweepInterval: 0 });
  new RedisStore({ url, username: "app", password: "secret", clientName: "web" });
  new RedisStore({ url, credentials: () => ({ password: "secret" }) });
  new RedisStore({ cluster: [url], credentials: async () => ({ username: "app", password: "secret" }) });
  expectError(new RedisStore({ url, credentials: () => ({ username: "app" }) }));
  expectError(new RedisStore());
  expectError(new RedisStore({}));
  expectError(new RedisStore({ url, cluster: [url] }));
  expectError(new RedisStore({ cluster: url }));
  expectError(new RedisStore({ sentinel: { urls: [url] } }));
  expectError(new RedisStore({ url, path: "." }));
  expectError(new RedisStore({ url, waitReplicas: "1" }));
}

// Whatever the store.
export function anyStore() {
  expectAssignable<SessionStore>(store);
  expectAssignable<SessionStore>(new FileStore({ path: "." }));
  expectAssignable<SessionStore>(new RedisStore({ url: "redis://localhost" }));
  expectAssignable<SessionStore<{ cart?: string[] }>>(new MemoryStore<{ cart?: string[] }>());
  class Audited extends FileStore {
    override async get(sessionId: string) {
      return super.get(sessionId);
    }
  }
  expectAssignable<FileStore>(new Audited({ path: "." }));
}

// Errors.
export async function errors() {
  const error = new SessionStoreError("ERR_STORE_FULL", "no room", { cause: new Error("why") });
  expectAssignable<Error>(error);
  expectType<"SessionStoreError">(error.name);
  expectType<SessionStoreErrorCode>(error.code);
  expectType<
    | "ERR_SESSION_EXISTS"
    | "ERR_INVALID_SESSION"
    | "ERR_SESSION_ENDED"
    | "ERR_TOO_MANY_SESSIONS"
    | "ERR_SESSION_TOO_LARGE"
    | "ERR_INVALID_OPTION"
    | "ERR_ADDON_LOAD"
    | "ERR_STORE_CLOSED"
    | "ERR_STORE_FULL"
    | "ERR_STORE_BUSY"
    | "ERR_STORE_LOCKED"
    | "ERR_STORE_IO"
    | "ERR_STORE_CORRUPT"
    | "ERR_STORE_TIMEOUT"
    | "ERR_STORE_UNAVAILABLE"
    | "ERR_INTERNAL"
  >(error.code);
  expectType<"unknown" | undefined>(error.outcome);
  expectError(new SessionStoreError("ERR_OTHER", "no such code"));
}

// The guard gives back what it is given.
export async function guard() {
  class AppSession {
    readonly extra = 1;
    sessionInfo = { name: "a cookie", secret: "a secret" };
    async manageSession(_req: { cookies: object }, _res: object, _next: () => void): Promise<void> {}
    async destroySession(_req: { cookies: object }, _res: object): Promise<void> {}
    // biome-ignore lint/correctness/noUnusedPrivateClassMembers: FluidAuth's has private members too
    private decryptSessionId(): void {}
  }
  expectAssignable<GuardableSession>(new AppSession());
  expectType<AppSession>(guardSession(new AppSession()));
  expectError(guardSession({}));
  expectError(guardSession({ ...new AppSession(), sessionInfo: {} }));
}
