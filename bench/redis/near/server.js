"use strict";

// A process for one store: an Express app with express-session, which touches a session once a minute.
const { MemoryStore, RedisStore } = require("../../..");
const { ConnectStore } = require("../../../connect.js");
const { openApp } = require("../../connect/load/app.js");
const { serve } = require("../../serve.js");

const STORES = {
  memory: () => new MemoryStore(),
  cached: (url) => new RedisStore({ url, prefix: "cached:", sweepInterval: 0, cache: {} }),
  uncached: (url) => new RedisStore({ url, prefix: "uncached:", sweepInterval: 0 }),
};

serve({
  open: ({ store, url, core }) => openApp(new ConnectStore(STORES[store](url), { touchAfter: 60_000 }), core),
});
