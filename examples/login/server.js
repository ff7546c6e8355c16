"use strict";

const path = require("node:path");
const { appSecret } = require("../shared/app-secret");
const { expressServer, openOrStop, serve } = require("../shared/serve");
const { DEMO_LOGINS } = require("../shared/users");
const { createApp } = require("./app");
const { DeviceStore } = require("./device-store");

const DATA_DIR = process.env.DATA_DIR || ".data";

const { store, app } = openOrStop(() => {
  const store = new DeviceStore({ path: path.join(DATA_DIR, "sessions"), maxSessionsPerUser: 20 });
  return { store, app: createApp({ store, secret: appSecret(DATA_DIR), demoLogins: DEMO_LOGINS }) };
});

serve({
  name: "Login",
  sessionsBy: `${app.locals.authName}, kept in ${store.db.path}`,
  app: expressServer(app),
  store,
});
