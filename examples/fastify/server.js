"use strict";

const path = require("node:path");
const { appSecret } = require("../shared/app-secret");
const { chosenStore } = require("../shared/chosen-store");
const { openOrStop, serve } = require("../shared/serve");
const { DEMO_LOGINS } = require("../shared/users");
const { createApp } = require("./app");
const { openStore } = require("./store");

const DATA_DIR = process.env.DATA_DIR || ".data/fastify";

const { store, place, app } = openOrStop(() => {
  const { place, ...chosen } = chosenStore(path.join(DATA_DIR, "sessions"), "fastify:");
  const store = openStore(chosen);
  return { store, place, app: createApp({ store, secret: appSecret(DATA_DIR), demoLogins: DEMO_LOGINS }) };
});

serve({
  name: "Fastify",
  sessionsBy: `@fastify/session, kept in ${place}`,
  app,
  store,
});
