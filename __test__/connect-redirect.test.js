"use strict";

// A browser follows a redirect as soon as it has the headers, maybe before the login or the logout is on disk. The next
// page must still see the new state. `REDIRECT_ROUNDS` asks for more rounds.

const assert = require("node:assert/strict");
const { once } = require("node:events");
const http = require("node:http");
const { after, describe, it } = require("node:test");
const cookies = require("@fastify/cookie");
const fastifySession = require("@fastify/session");
const express = require("express");
const session = require("express-session");
const fastify = require("fastify");
const { FileStore, MemoryStore } = require("..");
const { ConnectStore } = require("../connect.js");
const { makePlace } = require("./support/file-places.js");

const ROUNDS = Number(process.env.REDIRECT_ROUNDS ?? 100);
const SECRET = "a secret for tests, and for nothing else";
const place = makePlace({ onDisk: true });
const agent = new http.Agent({ keepAlive: true });
after(() => agent.destroy());

/** Neither login nor logout waits for the store. */
async function serveExpress(store) {
  const app = express();
  app.use(session({ secret: SECRET, store, resave: false, saveUninitialized: false }));
  app.get("/login", (req, res) => {
    req.session.user = "ada";
    res.redirect("/me");
  });
  app.get("/logout", (req, res) => {
    req.session.destroy();
    res.redirect("/me");
  });
  app.get("/me", (req, res) => {
    // A page that writes: if it did not see the session, it would replace it.
    if (req.session.user) req.session.views = (req.session.views ?? 0) + 1;
    res.end(req.session.user ?? "nobody");
  });
  const server = app.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { port: server.address().port, stop: () => server.close() };
}

async function serveFastify(store) {
  const app = fastify();
  app.register(cookies);
  app.register(fastifySession, {
    secret: SECRET,
    store,
    saveUninitialized: false,
    cookie: { secure: false },
  });
  app.get("/login", async (request, reply) => {
    request.session.set("user", "ada");
    return reply.redirect("/me");
  });
  app.get("/logout", async (request, reply) => {
    request.session.destroy();
    return reply.redirect("/me");
  });
  app.get("/me", async (request) => {
    const user = request.session.get("user");
    if (user) request.session.set("views", (request.session.get("views") ?? 0) + 1);
    return user ?? "nobody";
  });
  await app.listen({ port: 0, host: "127.0.0.1" });
  return { port: app.server.address().port, stop: () => app.close() };
}

/** Sends a request, and resolves as soon as the headers of the response have arrived. */
function ask(port, path, cookie) {
  return new Promise((resolve, reject) => {
    const request = http.get({ agent, port, host: "127.0.0.1", path, headers: cookie ? { cookie } : {} });
    request.on("error", reject);
    request.on("response", (response) => {
      const body = new Promise((done) => {
        let text = "";
        response.setEncoding("utf8").on("data", (part) => (text += part));
        response.on("end", () => done(text));
      });
      const given = response.headers["set-cookie"]?.[0].split(";")[0];
      resolve({ status: response.statusCode, location: response.headers.location, cookie: given, body });
    });
  });
}

/** Follows a redirect without waiting for its body. Resolves to the next page and the current cookie. */
async function follow(port, path, cookie) {
  const first = await ask(port, path, cookie);
  assert.equal(first.status, 302);
  const page = await ask(port, first.location, first.cookie ?? cookie);
  await first.body;
  return { user: await page.body, cookie: page.cookie ?? first.cookie ?? cookie };
}

const STORES = {
  MemoryStore: () => new MemoryStore(),
  FileStore: () => new FileStore({ path: place.next() }),
  "FileStore with a secret": () => new FileStore({ path: place.next(), secret: SECRET }),
};

for (const [framework, serve] of Object.entries({ express: serveExpress, fastify: serveFastify })) {
  for (const [name, open] of Object.entries(STORES)) {
    describe(`after a redirect, with ${framework} on a ${name},`, () => {
      it(`${ROUNDS} logins and ${ROUNDS} logouts are seen`, async () => {
        const store = open();
        const { port, stop } = await serve(new ConnectStore(store));
        const wrong = { login: 0, later: 0, logout: 0 };
        try {
          for (let round = 0; round < ROUNDS; round++) {
            const { user, cookie } = await follow(port, "/login");
            if (user !== "ada") wrong.login++;
            if ((await (await ask(port, "/me", cookie)).body) !== "ada") wrong.later++;
            if ((await follow(port, "/logout", cookie)).user !== "nobody") wrong.logout++;
          }
        } finally {
          await stop();
          await store.close();
        }
        assert.deepEqual(wrong, { login: 0, later: 0, logout: 0 });
      });
    });
  }
}
