"use strict";

// A server on express-session or @fastify/session whose slow requests wait until they are released. It runs in the
// test's process, or in a separate one with arguments (see `startElsewhere`).

const { fork } = require("node:child_process");
const { randomUUID } = require("node:crypto");
const { once } = require("node:events");
const http = require("node:http");
const express = require("express");
const session = require("express-session");

const SECRET = "a secret for tests, and for nothing else";
const HOUR = 3_600_000;

/** The id of a new session: an app may choose it, for example one per device. */
const newId = (req) => req.query?.device ?? randomUUID();

/** Waiting requests, by name. */
class Waiting {
  #doors = new Map();

  #door(name) {
    if (!this.#doors.has(name)) {
      const door = {};
      door.reached = new Promise((resolve) => {
        door.reach = resolve;
      });
      door.opened = new Promise((resolve) => {
        door.open = resolve;
      });
      this.#doors.set(name, door);
    }
    return this.#doors.get(name);
  }

  /** Resolves when `open` is called. */
  async pass(name) {
    this.#door(name).reach();
    await this.#door(name).opened;
  }

  reached(name) {
    return this.#door(name).reached;
  }

  open(name) {
    this.#door(name).open();
    this.#doors.delete(name);
  }
}

function expressServer(store, { resave = false } = {}) {
  const waiting = new Waiting();
  const app = express();
  app.use("/door", async (req, res) => {
    if (req.method === "GET") await waiting.reached(req.query.name);
    else waiting.open(req.query.name);
    res.end();
  });
  const cookie = { maxAge: HOUR };
  app.use(session({ secret: SECRET, store, resave, saveUninitialized: false, cookie, genid: newId }));
  app.post("/login", (req, res, next) => {
    req.session.regenerate((error) => {
      if (error) return next(error);
      req.session.user = "ada";
      res.end();
    });
  });
  app.post("/logout", (req, res, next) => req.session.destroy((error) => (error ? next(error) : res.end())));
  app.get("/me", (req, res) => res.end(req.session.user ?? "nobody"));
  app.get("/slow", async (req, res) => {
    await waiting.pass(req.query.name);
    if (req.query.changes) req.session.seen = req.query.name;
    res.end();
  });
  app.use((error, _req, res, _next) => res.status(500).end(`${error.code}: ${error.message}`));
  return listen(http.createServer(app));
}

async function listen(server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const stop = async () => {
    server.closeAllConnections();
    server.close();
    await once(server, "close");
  };
  return { url: `http://127.0.0.1:${server.address().port}`, stop };
}

async function fastifyServer(store) {
  const waiting = new Waiting();
  const app = require("fastify")();
  app.get("/door", async (request) => {
    await waiting.reached(request.query.name);
    return "";
  });
  app.post("/door", async (request) => {
    waiting.open(request.query.name);
    return "";
  });
  app.register(async (routes) => {
    routes.register(require("@fastify/cookie"));
    routes.register(require("@fastify/session"), {
      secret: SECRET,
      store,
      saveUninitialized: false,
      cookie: { secure: false, maxAge: HOUR },
      idGenerator: newId,
    });
    routes.post("/login", async (request) => {
      await request.session.regenerate();
      request.session.set("user", "ada");
      return "";
    });
    routes.post("/logout", async (request) => {
      await request.session.destroy();
      return "";
    });
    routes.get("/me", async (request) => request.session.get("user") ?? "nobody");
    routes.get("/slow", async (request) => {
      await waiting.pass(request.query.name);
      if (request.query.changes) request.session.set("seen", request.query.name);
      return "";
    });
  });
  await app.listen({ port: 0, host: "127.0.0.1" });
  return { url: `http://127.0.0.1:${app.server.address().port}`, stop: () => app.close() };
}

const SERVERS = { express: expressServer, fastify: fastifyServer };

/** Like `SERVERS[framework](store)` with a store of this class and these options, in another process. */
async function startElsewhere(framework, Store, options) {
  const child = fork(__filename, [framework, Store.name, JSON.stringify(options)]);
  const [url] = await once(child, "message");
  const stop = async () => {
    child.disconnect();
    await once(child, "exit");
  };
  return { url, stop };
}

/** A browser: it sends its cookies to any server. */
class Browser {
  #cookie;

  constructor(cookie) {
    this.#cookie = cookie;
  }

  /** Returns another browser with the same cookies. */
  twin() {
    return new Browser(this.#cookie);
  }

  /** Resolves to the body of the response. Rejects for any status but 200. */
  async ask(method, url) {
    const headers = this.#cookie ? { cookie: this.#cookie } : {};
    const answer = await fetch(url, { method, headers });
    const [cookie] = answer.headers.getSetCookie();
    if (cookie) [this.#cookie] = cookie.split(";");
    const body = await answer.text();
    if (answer.status !== 200) throw new Error(`${method} ${url}: ${answer.status} ${body}`);
    return body;
  }
}

async function serveAsChild([framework, kind, options]) {
  const { [kind]: Store } = require("../..");
  const { ConnectStore } = require("../../connect.js");
  const { url } = await SERVERS[framework](new ConnectStore(new Store(JSON.parse(options))));
  process.send(url);
  process.once("disconnect", () => process.exit());
}

if (require.main === module) serveAsChild(process.argv.slice(2));

module.exports = { Browser, SERVERS, startElsewhere };
