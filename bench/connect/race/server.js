"use strict";

// A process for one store and one app.
const { serve } = require("../../serve.js");
const { listen } = require("../listen.js");
const { openStore } = require("../stores.js");
const { Gate } = require("./gate.js");

const APPS = {
  express: (options) => require("./express-app.js").expressServer(options),
  fastify: (options) => require("./fastify-app.js").fastifyServer(options),
};

/** Of a session that is not there, some stores give nothing and one an error, as it has no such file. */
const isStoredIn = (store) => (sid) =>
  new Promise((resolve, reject) => {
    store.get(sid, (error, session) => {
      if (error && error.code !== "ENOENT") reject(error);
      else resolve(Boolean(session));
    });
  });

/** The server's address. */
async function open({ store: name, app, directory, resave }) {
  const store = openStore(name, directory);
  return listen(await APPS[app]({ store, gate: new Gate(), isStored: isStoredIn(store), resave }));
}

serve({ open });
