// Each line marked `wrong` must not compile, and every other must. See ../types.test.js.
import { MemoryStore } from "@fluidauth/native-store";
import { ConnectStore } from "@fluidauth/native-store/connect";
import session, { type SessionData } from "express-session";

const inner = new MemoryStore();

new ConnectStore(); // wrong
new ConnectStore(new Map()); // wrong
new ConnectStore(new session.MemoryStore()); // wrong
new ConnectStore(inner, { ttl: "1d" }); // wrong
new ConnectStore(inner, { touchafter: 1 }); // wrong
new ConnectStore(inner, { userId: "passport.user" }); // wrong
new ConnectStore<SessionData>(inner, { userId: (kept) => kept.users }); // wrong
new ConnectStore(inner, { userId: (kept) => kept.users }); // wrong
new ConnectStore(inner).store.verify(); // wrong

const store = new ConnectStore<SessionData>(inner);
store.set("an id", { user: "ada" }); // wrong
store.get(42); // wrong
store.get("an id").then((kept) => kept.cookie); // wrong
store.get("an id", (_error, kept) => kept.cookie); // wrong
store.destroyByUser(42, { exept: "an id" }); // wrong
store.sessions({ user: 42 }); // wrong
store.sessions(42); // wrong
store.store = inner; // wrong
