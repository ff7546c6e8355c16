// An app on express-session. It logs in, returns, returns after a restart, and prints the results.

const { once } = require("node:events");
const express = require("express");
const session = require("express-session");
const { FileStore } = require("@fluidauth/native-store");
const { ConnectStore } = require("@fluidauth/native-store/connect");

const [path] = process.argv.slice(2);

async function serve() {
  const store = new ConnectStore(new FileStore({ path }));
  const app = express();
  app.set("env", "test");
  app.use(session({ secret: "a secret for tests", resave: false, saveUninitialized: false, store }));
  app.post("/login", (req, res, next) => {
    req.session.regenerate((error) => {
      if (error) return next(error);
      req.session.user = "ada";
      res.end("in");
    });
  });
  app.get("/me", (req, res) => {
    const isOwn = req.session instanceof session.Session && req.session.cookie instanceof session.Cookie;
    res.end(`${req.session.user ?? "nobody"}, ${isOwn}`);
  });
  app.use((error, _req, res, _next) => res.status(500).end(`${error.code}: ${error.message}`));
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  const stop = async () => {
    server.closeAllConnections();
    server.close();
    await store.close();
  };
  return { url: `http://127.0.0.1:${server.address().port}`, stop };
}

async function main() {
  let cookie;
  const ask = async (method, url) => {
    const answer = await fetch(url, { method, headers: cookie ? { cookie } : {} });
    const [given] = answer.headers.getSetCookie();
    if (given) [cookie] = given.split(";");
    return `${answer.status} ${await answer.text()}`;
  };
  const seen = [];
  const before = await serve();
  seen.push(await ask("POST", `${before.url}/login`), await ask("GET", `${before.url}/me`));
  await before.stop();
  const after = await serve();
  seen.push(await ask("GET", `${after.url}/me`), await ask("POST", `${after.url}/login`));
  await after.stop();
  console.log(JSON.stringify(seen));
}

main();
