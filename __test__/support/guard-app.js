"use strict";

const { once } = require("node:events");
const http = require("node:http");
const cookieParser = require("cookie-parser");
const express = require("express");

/** Serves an app on loopback that responds immediately, which provokes the crash. `route` adds routes. */
async function serve(session, { before = [cookieParser()], route = () => {} } = {}) {
  const errors = [];
  const nexts = []; // for each request, how often it was passed on
  const app = express();
  app.use(before);
  app.use((req, res, next) => {
    const index = nexts.push(0) - 1;
    session.manageSession(req, res, (error) => {
      nexts[index]++;
      next(error);
    });
  });
  route(app);
  app.get("/login", async (req, res, next) => {
    await req.session.create({ id: req.query.as ?? "ada" }).catch(next);
    res.json({});
  });
  app.get("/logout", async (req, res) => {
    await req.session.destroy();
    res.json({});
  });
  app.use((req, res) => res.headersSent || res.json({ user: req.session.user?.id ?? null }));
  app.use((error, _req, res, _next) => {
    errors.push(error);
    if (!res.headersSent) res.status(500).json({ error: error.message });
  });
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  const close = () => {
    server.closeAllConnections();
    server.close();
  };
  return { port: server.address().port, errors, nexts, close };
}

/** Sends a request on a new connection. `cookie` is `name=value` text. */
async function get(port, path = "/", cookie = undefined) {
  const request = http.get({
    host: "127.0.0.1",
    port,
    path,
    agent: false,
    headers: cookie ? { cookie } : {},
  });
  const [response] = await once(request, "response");
  let text = "";
  for await (const chunk of response.setEncoding("utf8")) text += chunk;
  return {
    status: response.statusCode,
    body: text ? JSON.parse(text) : null,
    setCookies: response.headers["set-cookie"] ?? [],
  };
}

/** Logs in, and returns the cookie to send from then on. */
async function logIn(port, as = "ada") {
  const { setCookies } = await get(port, `/login?as=${as}`);
  return setCookies.at(-1).split(";")[0];
}

module.exports = { serve, get, logIn };
