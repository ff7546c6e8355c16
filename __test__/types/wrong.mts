// Each line marked `wrong` must not compile, and every other must. See ../types.test.js.
import { type BaseSessionStore, Session } from "@fluidauth/express";
import { FileStore, guardSession, MemoryStore, RedisStore, SessionStoreError } from "@fluidauth/native-store";

const store = new MemoryStore<{ cart?: string[] }>();
const session = { sessionId: "an id", expires: new Date() };

new MemoryStore({ maxSession: 100 }); // wrong
new MemoryStore({ sweepInterval: "1m" }); // wrong
new FileStore(); // wrong
new FileStore({ path: "./sessions", durability: "always" }); // wrong
new RedisStore({ prefix: "app:" }); // wrong
new RedisStore({ url: "redis://localhost", cluster: [] }); // wrong
new FileStore({ path: 5 }); // wrong
guardSession({ store }); // wrong
new Session({ secret: "a secret", store: new Map() }); // wrong
guardSession(new Session({ secret: "a secret", store })).decryptSessionId("a cookie"); // wrong

// FluidAuth creates sessions without a cart.
export const demanding: BaseSessionStore = new MemoryStore<{ cart: string[] }>(); // wrong
export const numbering: BaseSessionStore = new MemoryStore<{ userId: number }>(); // wrong

store.create({ expires: new Date() }); // wrong
store.create({ ...session, cart: "apple" }); // wrong
store.create({ ...session, expires: null }); // wrong
store.create({ ...session, expires: Date.now() }); // wrong
store.update(session); // wrong
store.touch("an id"); // wrong
store.deleteByUser(42, { exept: "an id" }); // wrong
store.get("an id").then((found) => found.sessionId); // wrong
store.stats().then((stats) => stats.log); // wrong
store.db = { type: "memory", name: null }; // wrong
store.db.name = "other"; // wrong
new SessionStoreError("ERR_STORE_FULL", "no room").code = "ERR_STORE_CLOSED"; // wrong
