// A strict app in TypeScript that must compile without a cast. See ../types.test.js.
import { AuthService, type BaseSessionStore, type ISessionData, Session } from "@fluidauth/express";
import {
  ConnectStore,
  FileStore,
  guardSession,
  MemoryStore,
  type MemoryStoreOptions,
  RedisStore,
  type SessionInput,
  SessionStoreError,
} from "@fluidauth/native-store";

const secret = "a secret";
const options: MemoryStoreOptions = { name: "web", maxSessions: 100_000, sweepInterval: 0 };

const session: Session = guardSession(new Session({ secret, store: new MemoryStore(options) }));
new AuthService({ session });
new AuthService({
  session: guardSession(new Session({ secret, store: new FileStore({ path: "./sessions" }) })),
});
session.serializeUser = () => 42;

/** `BaseSessionStore` with methods that are checked as strictly as functions. */
interface StrictStore {
  db: unknown;
  create: (sessionData: ISessionData) => Promise<void> | void;
  update: (sessionId: string, sessionData: ISessionData) => Promise<void> | void;
  delete: (sessionId: string) => Promise<void> | void;
  get: (sessionId: string) => Promise<ISessionData | null> | ISessionData | null;
  clean: () => void | Promise<void>;
}

type Fields = { device?: string };

/** Adds its own field to every session. */
class DeviceStore extends MemoryStore<Fields> {
  constructor(readonly device: string) {
    super({ maxSessionsPerUser: 5 });
  }

  override async create(session: SessionInput<Fields>): Promise<void> {
    await super.create({ device: this.device, ...session });
  }
}

/** Can replace the class whose calls it counts. */
class CountingStore extends MemoryStore {
  created = 0;

  override async create(session: SessionInput): Promise<void> {
    await super.create(session);
    this.created++;
  }
}

export const stores: BaseSessionStore[] = [
  new MemoryStore(),
  new MemoryStore<Fields>(),
  new MemoryStore<{ userId: string }>(),
  // biome-ignore lint/suspicious/noExplicitAny: the type of anything, as apps write it
  new MemoryStore<Record<string, any>>(),
  new FileStore({ path: "./sessions", secret: [new Uint8Array(32)] }),
  new FileStore<Fields>({ path: "./sessions" }),
  new RedisStore<Fields>({ url: "redis://localhost:6379" }),
  new DeviceStore("a phone"),
  new CountingStore(),
];
export const strictStores: StrictStore[] = [
  new FileStore({ path: "./sessions" }),
  new RedisStore({ cluster: ["redis://localhost:6379"] }),
  new MemoryStore(),
  new MemoryStore<Fields>(),
  new DeviceStore("a phone"),
  new CountingStore(),
];

export async function logOutElsewhere(store: DeviceStore, sessionId: string): Promise<string[]> {
  const current = await store.get(sessionId);
  if (current === null) return [];
  await store.deleteByUser(current.userId, { except: sessionId });
  const devices: string[] = [];
  for await (const id of store.ids()) devices.push((await store.get(id))?.device ?? "unknown");
  return devices;
}

export async function countOne(): Promise<number> {
  const store = new MemoryStore();
  try {
    await store.create({ sessionId: "an id", userId: 42, expires: new Date(Date.now() + 60_000) });
  } catch (error) {
    if (error instanceof SessionStoreError && error.code === "ERR_SESSION_EXISTS") return 0;
    throw error;
  }
  const count = await store.size();
  await store[Symbol.asyncDispose]();
  return count;
}

// The adapter needs none of the frameworks' types.
export const adapter = new ConnectStore(new FileStore({ path: "./sessions" }));
export const checked = adapter.store.verify();
