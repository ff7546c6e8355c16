"use strict";

const path = require("node:path");
const { appSecret } = require("../shared/app-secret");
const { expressServer, openOrStop, serve } = require("../shared/serve");
const { DEMO_LOGINS } = require("../shared/users");
const { createApp } = require("./app");
const { openStore } = require("./store");

const DATA_DIR = process.env.DATA_DIR || ".data/passport";

const { store, app } = openOrStop(() => {
  const store = openStore(path.join(DATA_DIR, "sessions"));
  return { store, app: createApp({ store, secret: appSecret(DATA_DIR), demoLogins: DEMO_LOGINS }) };
});

serve({
  name: "Passport",
  sessionsBy: `express-session and Passport, kept in ${store.store.db.path}`,
  app: expressServer(app),
  store,
});
