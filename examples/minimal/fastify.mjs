// Logins that survive restarts, on Fastify 5 with @fastify/session.
import { homedir } from "node:os";
import fastifyCookie from "@fastify/cookie";
import fastifySession from "@fastify/session";
import { ConnectStore, FileStore } from "@fluidauth/native-store";
import fastify from "fastify";

const { PORT = "3000", HOST, NODE_ENV, NATIVE_STORE_PATH, SESSION_SECRET: secret } = process.env;
if (!secret) throw new Error("SESSION_SECRET is required: openssl rand -hex 32");
// Absolute, and outside of the release folder: a deploy must find the same sessions.
const path = NATIVE_STORE_PATH ?? `${homedir()}/.local/state/minimal/sessions`;
const store = new ConnectStore(new FileStore({ path }), {
  userId: (session) => session.userId,
  touchAfter: 60_000, // @fastify/session saves with every answer
});
const cookie = { secure: NODE_ENV === "production", sameSite: "lax", maxAge: 7 * 24 * 3_600_000 };

/** Replace this: look up the user, and verify the hash of the password. */
function findUser({ name, password }) {
  return name === "ada" && password === "analytical-engine" ? { id: 1 } : null;
}

const app = fastify({ trustProxy: "loopback, uniquelocal" }); // the proxy that speaks HTTPS
app.get("/healthz", () => store.ping().then(() => "ok\n"));
await app.register(fastifyCookie);
await app.register(fastifySession, { store, secret, cookie, saveUninitialized: false });
app.get("/", async ({ session }) => ({ userId: session.userId ?? null }));
app.post("/login", async (request, reply) => {
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
  if (!session.userId) return reply.code(401).send();
  return { ended: await store.destroyByUser(session.userId) };
});

app.addHook("onClose", () => store.close());
const stop = () => app.close();
process.once("SIGINT", stop).once("SIGTERM", stop);
console.log(await app.listen({ host: HOST ?? "localhost", port: Number(PORT) }));
