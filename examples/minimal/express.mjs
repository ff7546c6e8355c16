// Logins that survive restarts, on Express 4 or 5 with express-session.
import { homedir } from "node:os";
import { ConnectStore, FileStore } from "@fluidauth/native-store";
import express from "express";
import session from "express-session";

const { PORT = "3000", NODE_ENV, NATIVE_STORE_PATH, SESSION_SECRET: secret } = process.env;
if (!secret) throw new Error("SESSION_SECRET is required: openssl rand -hex 32");
// Absolute, and outside of the release folder: a deploy must find the same sessions.
const path = NATIVE_STORE_PATH ?? `${homedir()}/.local/state/minimal/sessions`;
const store = new ConnectStore(new FileStore({ path }), { userId: (session) => session.userId });
const cookie = { secure: NODE_ENV === "production", sameSite: "lax", maxAge: 7 * 24 * 3_600_000 };

/** Replace this: look up the user, and verify the hash of the password. */
function checkPassword(req, res, next) {
  if (req.body?.name !== "ada" || req.body.password !== "analytical-engine") return res.sendStatus(401);
  res.locals.userId = 1;
  next();
}

const app = express();
app.set("trust proxy", "loopback, uniquelocal"); // the proxy that speaks HTTPS
app.get("/healthz", (_req, res, next) => store.ping().then(() => res.send("ok\n"), next));
app.use(session({ store, secret, cookie, resave: false, saveUninitialized: false }), express.json());
app.get("/", (req, res) => res.json({ userId: req.session.userId ?? null }));
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
  if (!req.session.userId) return res.sendStatus(401);
  store.destroyByUser(req.session.userId, (error, ended) => (error ? next(error) : res.json({ ended })));
});

const server = app.listen(PORT, (error) => {
  if (error) throw error;
  console.log(`http://localhost:${server.address().port}`);
});
const stop = () => server.close(() => store.close());
process.once("SIGINT", stop).once("SIGTERM", stop);
