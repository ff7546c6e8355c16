"use strict";

// The app of the rows on Fastify. It is CommonJS, as the one on Express is an ES module.
const cookie = require("@fastify/cookie");
const session = require("@fastify/session");
const fastify = require("fastify");
const { runtime, store } = require("./store.cjs");

async function main() {
  const app = fastify();
  await app.register(cookie);
  await app.register(session, {
    store,
    secret: "the secret of the matrix, of 32 characters or more",
    cookie: { secure: false },
    saveUninitialized: false,
  });

  app.get("/", async (request) => {
    const { userId = null } = request.session;
    const devices = userId === null ? 0 : (await store.getByUser(userId)).length;
    return { runtime, userId, devices };
  });
  app.post("/login", async (request) => {
    await request.session.regenerate();
    request.session.userId = 1;
    return { userId: 1 };
  });
  app.post("/logout-everywhere", async (request) => ({
    ended: await store.destroyByUser(request.session.userId),
  }));

  app.addHook("onClose", () => store.close());
  process.once("SIGTERM", () => app.close());
  await store.ready();
  console.log(await app.listen({ host: "127.0.0.1", port: 0 }));
}

main();
