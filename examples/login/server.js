"use strict";

const path = require("node:path");
const { createApp } = require("./app");
const { appSecret } = require("./app-secret");
const { DeviceStore } = require("./device-store");
const { DEMO_LOGINS } = require("./users");

const HOST = process.env.HOST || "localhost";
const PORT = Number(process.env.PORT || 3000);
const DATA_DIR = process.env.DATA_DIR || ".data";

function stop(message) {
  console.error(message);
  process.exit(1);
}

function explainListenError(error) {
  if (error.code === "EADDRINUSE")
    stop(`Port ${PORT} is taken. Choose another, for example PORT=${PORT + 1}.`);
  if (error.code === "EACCES") stop(`Port ${PORT} needs more rights. Choose another, for example PORT=3000.`);
  stop(`Cannot listen on ${HOST}:${PORT}: ${error.message}`);
}

function announce(server, authName, store) {
  const [{ email, password }] = DEMO_LOGINS;
  console.log(`Login example: http://${HOST}:${server.address().port}`);
  console.log(`Log in with    ${email} / ${password}`);
  console.log(`Sessions by    ${authName}, kept in ${store.db.path}`);
}

function stopGracefully(server, store) {
  const shutDown = () => {
    // Requests in flight finish; a client that will not leave is cut off.
    setTimeout(() => server.closeAllConnections(), 3000).unref();
    server.close(() => store.close());
  };
  process.once("SIGINT", shutDown);
  process.once("SIGTERM", shutDown);
}

function openStore() {
  try {
    return new DeviceStore({ path: path.join(DATA_DIR, "sessions"), maxSessionsPerUser: 20 });
  } catch (error) {
    return stop(`${error.code}: ${error.message}`);
  }
}

function main() {
  if (!Number.isInteger(PORT) || PORT < 0 || PORT > 65535) {
    stop(`PORT must be a number from 0 to 65535, not "${process.env.PORT}".`);
  }
  const store = openStore();
  const app = createApp({ store, secret: appSecret(DATA_DIR), demoLogins: DEMO_LOGINS });
  const server = app.listen(PORT, HOST, () => announce(server, app.locals.authName, store));
  server.once("error", explainListenError);
  stopGracefully(server, store);
}

main();
