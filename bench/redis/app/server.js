"use strict";

// A process for one store: an Express app with express-session.
const { openApp } = require("../../connect/load/app.js");
const { serve } = require("../../serve.js");
const { openExpress } = require("../stores.js");

serve({
  async open({ store, servers, core }) {
    const opened = await openExpress(store, servers);
    return openApp(opened.store, core);
  },
});
