// examples/minimal/express.mjs with types: `req.session.userId` is a number here and in the store.
import { homedir } from "node:os";
import { ConnectStore, FileStore } from "@fluidauth/native-store";
import express, { type RequestHandler } from "express";
import session, { type SessionData } from "express-session";

declare module "express-session" {
  interface SessionData {
    userId?: number;
  }
}

const { PORT = "3000", NODE_ENV, NATIVE_STORE_PATH, SESSION_SECRET: secret } = process.env;
if (!secret) throw new Error("SESSION_SECRET is required: openssl rand -hex 32");
// Absolute, and outside of the release folder: a deploy must find the same sessions.
const path = NATIVE_STORE_PATH ?? `${homedir()}/.local/state/minimal/sessions`;
const store = new ConnectStore<SessionData>(new FileStore({ path }), {
  userId: (session) => session.userId,
});
const secure = NODE_ENV === "production";

/** Replace this: look up the user, and verify the hash of the password. */
const checkPassword: RequestHandler = (req, res, next) => {
  const { name, password } = (req.body ?? {}) as { name?: unknown; password?: unknown };
  if (name !== "ada" || password !== "analytical-engine") return void res.sendStatus(401);
  res.locals.userId = 1;
  next();
};

const app = express();
app.set("trust proxy", "loopback, uniquelocal"); // the proxy that speaks HTTPS
app.get("/healthz", (_req, res, next) => {
  store.ping().then(() => res.send("ok\n"), next);
});
app.use(
  session({
    store,
    secret,
    cookie: { secure, sameSite: "lax", maxAge: 7 * 24 * 3_600_000 },
    resave: false,
    saveUninitialized: false,
  }),
  express.json(),
);
app.get("/", (req, res) => {
  res.json({ userId: req.session.userId ?? null });
});
app.post("/login", checkPassword, (req, res, next) => {
  // A new id: somebody who knew the old one is not logged in with it.
  req.session.regenerate((error) => {
    if (error) return next(error);
    req.session.userId = res.locals.userId;
    // The login is on disk before the answer.
    req.session.save((error) => (error ? next(error) : res.json({ userId: req.session.userId })));
  });
});
app.post("/logout", (req, res, next) => {
  req.session.destroy((error) => (error ? next(error) : res.clearCookie("connect.sid").sendStatus(204)));
});
app.post("/logout-everywhere", (req, res, next) => {
  const { userId } = req.session;
  if (userId === undefined) return void res.sendStatus(401);
  store.destroyByUser(userId).then((ended) => res.json({ ended }), next);
});

const server = app.listen(Number(PORT), (error?: Error) => {
  if (error) throw error;
  const address = server.address();
  if (address && typeof address === "object") console.log(`http://localhost:${address.port}`);
});
const stop = () => server.close(() => store.close());
process.once("SIGINT", stop).once("SIGTERM", stop);
