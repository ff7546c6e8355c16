"use strict";

const path = require("node:path");
const { appSecret } = require("../shared/app-secret");
const { chosenStore } = require("../shared/chosen-store");
const { expressServer, openOrStop, serve } = require("../shared/serve");
const { DEMO_LOGINS } = require("../shared/users");
const { createApp } = require("./app");
const { openStore } = require("./store");

const DATA_DIR = process.env.DATA_DIR || ".data/passport";

const { store, place, app } = openOrStop(() => {
  const { place, ...chosen } = chosenStore(path.join(DATA_DIR, "sessions"), "passport:");
  const store = openStore(chosen);
  return { store, place, app: createApp({ store, secret: appSecret(DATA_DIR), demoLogins: DEMO_LOGINS }) };
});

serve({
  name: "Passport",
  sessionsBy: `express-session and Passport, kept in ${place}`,
  app: expressServer(app),
  store,
});
