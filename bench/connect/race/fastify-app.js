"use strict";

const cookie = require("@fastify/cookie");
const session = require("@fastify/session");
const fastify = require("fastify");
const { loginData, sessionOptions } = require("../session.js");

/** The same app as on Express. `resave` keeps the default `rolling`: each response saves the session. */
async function fastifyServer({ store, gate, isStored, resave }) {
  const app = fastify();
  app.get("/reached/:sid", async ({ params }) => {
    await gate.reached(params.sid);
    return {};
  });
  app.get("/open/:sid", async ({ params }) => {
    gate.open(params.sid);
    return {};
  });
  app.get("/stored/:sid", async ({ params }) => ({ stored: await isStored(params.sid) }));
  app.register(async (scope) => {
    const { secret, saveUninitialized, cookie: own } = sessionOptions(store);
    await scope.register(cookie);
    await scope.register(session, {
      store,
      secret,
      saveUninitialized,
      rolling: resave,
      cookie: { ...own, secure: false },
    });
    addRoutes(scope, gate);
  });
  await app.ready();
  return app.server;
}

function addRoutes(app, gate) {
  app.get("/login", async ({ session }) => {
    Object.assign(session, loginData());
    return { sid: session.sessionId };
  });
  app.get("/slow", async ({ session, query }) => {
    const { user } = session;
    await gate.wait(session.sessionId);
    if (query.change) session.changed = true;
    return { user };
  });
  app.get("/logout", async ({ session }) => {
    await session.destroy();
    return {};
  });
  app.get("/me", async ({ session: { user, changed } }) => ({ user, changed }));
}

module.exports = { fastifyServer };
