"use strict";

const path = require("node:path");
const { appSecret } = require("../shared/app-secret");
const { chosenStore } = require("../shared/chosen-store");
const { expressServer, openOrStop, serve } = require("../shared/serve");
const { DEMO_LOGINS } = require("../shared/users");
const { createApp } = require("./app");
const { withDevices } = require("./device-store");

const DATA_DIR = process.env.DATA_DIR || ".data";

const { store, place, app } = openOrStop(() => {
  const { Store, options, place } = chosenStore(path.join(DATA_DIR, "sessions"), "login:");
  const store = new (withDevices(Store))({ ...options, maxSessionsPerUser: 20 });
  return { store, place, app: createApp({ store, secret: appSecret(DATA_DIR), demoLogins: DEMO_LOGINS }) };
});

serve({
  name: "Login",
  sessionsBy: `${app.locals.authName}, kept in ${place}`,
  app: expressServer(app),
  store,
});
