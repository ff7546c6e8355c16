// Logins that survive restarts, on Express 4 with FluidAuth.
import { homedir } from "node:os";
import { AuthService, Session } from "@fluidauth/express";
import { FileStore, guardSession } from "@fluidauth/native-store";
import cookieParser from "cookie-parser";
import express from "express";

const { PORT = "3000", NATIVE_STORE_PATH, SESSION_SECRET: secret } = process.env;
if (!secret) throw new Error("SESSION_SECRET is required: openssl rand -hex 32");
// Absolute, and outside of the release folder: a deploy must find the same sessions.
const path = NATIVE_STORE_PATH ?? `${homedir()}/.local/state/minimal/sessions`;
const store = new FileStore({ path });
const users = [{ id: 1, name: "ada" }];

/** Replace this: look up the user, and verify the hash of the password. */
function findUser({ name, password }) {
  return password === "analytical-engine" ? users.find((user) => user.name === name) : undefined;
}

// Without the guard an expired or a garbage cookie can end the process.
const sessions = guardSession(new Session({ store, secret, extendSessionBeforeExpiry: true }));
const auth = new AuthService({ session: sessions, providers: [] });
auth.serializeUser((user) => user.id);
auth.deserializeUser(async (id) => users.find((user) => user.id === id) ?? null);

const app = express();
app.get("/healthz", (_req, res, next) => store.ping().then(() => res.send("ok\n"), next));
app.use(cookieParser(), auth.session(), auth.initialize(), express.json());
app.get("/", (req, res) => res.json({ userId: req.user?.id ?? null }));
app.post("/login", (req, res, next) => {
  const user = findUser(req.body ?? {});
  if (!user) return res.sendStatus(401);
  const login = req.logout().then(() => req.login(user)); // the browser's session before this one ends
  login.then(() => res.json({ userId: user.id }), next);
});
app.post("/logout", (req, res, next) => {
  req.logout().then(() => res.sendStatus(204), next);
});
app.post("/logout-everywhere", (req, res, next) => {
  if (!req.user) return res.sendStatus(401);
  store.deleteByUser(req.user.id).then((ended) => res.json({ ended }), next);
});

const server = app.listen(PORT, (error) => {
  if (error) throw error;
  console.log(`http://localhost:${server.address().port}`);
});
const stop = () => server.close(() => store.close());
process.once("SIGINT", stop).once("SIGTERM", stop);
