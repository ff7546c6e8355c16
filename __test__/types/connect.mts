// A strict app on express-session and @fastify/session that must compile without a cast. See ../types.test.js.
import type { FastifySessionOptions } from "@fastify/session";
import { FileStore, MemoryStore } from "@fluidauth/native-store";
import { type AppSession, ConnectStore, type ConnectStoreOptions } from "@fluidauth/native-store/connect";
import session, { type SessionData } from "express-session";

declare module "express-session" {
  interface SessionData {
    user: string;
    passport?: { user?: number };
    isAdmin?: boolean;
  }
}

declare module "fastify" {
  interface Session {
    user: string;
  }
}

const DAY = 24 * 60 * 60 * 1000;
const options: ConnectStoreOptions = { ttl: DAY, touchAfter: 60_000, prefix: "app:" };

// Without a type argument, sessions have the fields that the app has declared in the type of its framework.
const inferred = new ConnectStore(new FileStore({ path: "./sessions" }), {
  ...options,
  ttl: (kept) => (kept.isAdmin ? DAY / 24 : DAY),
  userId: (kept) => kept.passport?.user,
});
export const isSound = async () => (await inferred.store.verify()).ok;
export const health = async (): Promise<[number, string]> => {
  await inferred.ready({ timeout: 1000 });
  return [await inferred.ping(), (await inferred.stats()).state];
};
const file = new ConnectStore<SessionData, FileStore>(inferred.store);
export const asFile = file.store.backup("./copy");
export const fileBytes = async (): Promise<number> => (await file.stats()).fileBytes;
const typed = new ConnectStore<SessionData>(new MemoryStore<{ anything: unknown }>(), {
  ttl: (kept) => (kept.isAdmin ? DAY / 24 : DAY),
  userId: (kept) => kept.passport?.user,
});
const own = new ConnectStore(inferred.store);

const secret = "a secret of thirty-two characters";
export const middlewares = [inferred, typed, own].map((store) => session({ secret, store }));
export const plugins: FastifySessionOptions[] = [inferred, typed, own].map((store) => ({ secret, store }));
export const stores: session.Store[] = [inferred, typed];

export async function logOutElsewhere(user: number, sid: string): Promise<string[]> {
  const ended: number = await typed.destroyByUser(user, { except: sid });
  const rest = await typed.getByUser(user);
  return ended > 0
    ? rest.map((one) => `${one.sid} ${one.session.user} ${one.expires.getTime()}`)
    : typed.ids();
}

export async function idle(since: Date): Promise<string[]> {
  const found: string[] = [];
  for await (const { sid, session, createdAt, expiresAt, lastUsedAt } of typed.sessions()) {
    const began: Date = lastUsedAt ?? createdAt ?? expiresAt;
    if (began < since && session.user !== undefined) found.push(sid);
  }
  for await (const { sid } of own.sessions({ userId: 42 })) found.push(sid);
  return found;
}

export function byCallbacks(done: (error?: unknown) => void): void {
  typed.get("an id", (error, kept) => done(error ?? kept?.cookie.originalMaxAge));
  typed.set("an id", { cookie: new session.Cookie(), user: "ada" }, done);
  typed.touch("an id", { cookie: new session.Cookie(), user: "ada" }, done);
  typed.length((error, length) => done(error ?? length?.toFixed()));
  typed.destroyByUser(42, { except: "an id" }, (error, ended) => done(error ?? ended?.toFixed()));
  typed.destroyByUser(42, (error, ended) => done(error ?? ended?.toFixed()));
  typed.clear(done);
  typed.on("disconnect", done);
}

export const kept: Promise<AppSession | null> = inferred.get("an id");
export const user: Promise<string | undefined> = inferred.get("an id").then((found) => found?.user);
