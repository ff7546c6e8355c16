// The app of the rows on Express.
import express from "express";
import session from "express-session";
import { runtime, store } from "./store.cjs";

const app = express();
app.use(session({ store, secret: "of the matrix", resave: false, saveUninitialized: false }));

app.get("/", async (req, res, next) => {
  const { userId = null } = req.session;
  try {
    const devices = userId === null ? 0 : (await store.getByUser(userId)).length;
    res.json({ runtime, userId, devices });
  } catch (error) {
    next(error);
  }
});
app.post("/login", (req, res, next) => {
  req.session.regenerate((error) => {
    if (error) return next(error);
    req.session.userId = 1;
    req.session.save((error) => (error ? next(error) : res.json({ userId: 1 })));
  });
});
app.post("/logout-everywhere", (req, res, next) => {
  store.destroyByUser(req.session.userId, (error, ended) => (error ? next(error) : res.json({ ended })));
});

await store.ready();
const server = app.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
process.once("SIGTERM", () => server.close(() => store.close()));
