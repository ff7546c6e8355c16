// examples/minimal/fastify.mjs with types: `request.session.userId` is a number here and in the store.
import { homedir } from "node:os";
import fastifyCookie from "@fastify/cookie";
import fastifySession from "@fastify/session";
import { ConnectStore, FileStore } from "@fluidauth/native-store";
import fastify, { type Session } from "fastify";

declare module "fastify" {
  interface Session {
    userId?: number;
  }
}

const { PORT = "3000", HOST, NODE_ENV, NATIVE_STORE_PATH, SESSION_SECRET: secret } = process.env;
if (!secret) throw new Error("SESSION_SECRET is required: openssl rand -hex 32");
// Absolute, and outside of the release folder: a deploy must find the same sessions.
const path = NATIVE_STORE_PATH ?? `${homedir()}/.local/state/minimal/sessions`;
const store = new ConnectStore<Session>(new FileStore({ path }), {
  userId: (session) => session.userId,
  touchAfter: 60_000, // @fastify/session saves with every answer
});
const secure = NODE_ENV === "production";

interface Credentials {
  name?: unknown;
  password?: unknown;
}

/** Replace this: look up the user, and verify the hash of the password. */
function findUser({ name, password }: Credentials): { id: number } | null {
  return name === "ada" && password === "analytical-engine" ? { id: 1 } : null;
}

const app = fastify({ trustProxy: "loopback, uniquelocal" }); // the proxy that speaks HTTPS
app.get("/healthz", () => store.ping().then(() => "ok\n"));
await app.register(fastifyCookie);
await app.register(fastifySession, {
  store,
  secret,
  cookie: { secure, sameSite: "lax", maxAge: 7 * 24 * 3_600_000 },
  saveUninitialized: false,
});
app.get("/", async ({ session }) => ({ userId: session.userId ?? null }));
app.post<{ Body: Credentials | undefined }>("/login", async (request, reply) => {
  const user = findUser(request.body ?? {});
  if (!user) return reply.code(401).send();
  // A new id: somebody who knew the old one is not logged in with it.
  await request.session.regenerate();
  request.session.userId = user.id;
  return { userId: user.id }; // @fastify/session saves before it sends this
});
app.post("/logout", async ({ session }, reply) => {
  await session.destroy();
  return reply.clearCookie("sessionId").code(204).send();
});
app.post("/logout-everywhere", async ({ session }, reply) => {
  if (session.userId === undefined) return reply.code(401).send();
  return { ended: await store.destroyByUser(session.userId) };
});

app.addHook("onClose", () => store.close());
const stop = () => app.close();
process.once("SIGINT", stop).once("SIGTERM", stop);
console.log(await app.listen({ host: HOST ?? "localhost", port: Number(PORT) }));
