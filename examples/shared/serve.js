"use strict";

const { once } = require("node:events");
const { createServer } = require("node:http");
const { DEMO_LOGINS } = require("./users");

const HOST = process.env.HOST || "localhost";
const PORT = Number(process.env.PORT || 3000);
const SHUTDOWN_TIMEOUT = 3000;

function stop(message) {
  console.error(message);
  process.exit(1);
}

/** Returns the result of `open`. If it throws, prints the reason in one line and exits. */
function openOrStop(open) {
  try {
    return open();
  } catch (error) {
    return stop(error.code ? `${error.code}: ${error.message}` : error.message);
  }
}

function explainListenError(error) {
  if (error.code === "EADDRINUSE")
    return `Port ${PORT} is taken. Choose another, for example PORT=${PORT + 1}.`;
  if (error.code === "EACCES")
    return `Port ${PORT} needs more rights. Choose another, for example PORT=3000.`;
  return `Cannot listen on ${HOST}:${PORT}: ${error.message}`;
}

function announce(name, address, sessionsBy) {
  const [{ email, password }] = DEMO_LOGINS;
  const title = `${name} example:`;
  const line = (label, value) => console.log(`${label.padEnd(title.length)} ${value}`);
  line(title, `http://${HOST}:${address.port}`);
  line("Log in with", `${email} / ${password}`);
  line("Sessions by", sessionsBy);
}

function stopGracefully(app, store) {
  const shutDown = async () => {
    // Requests in flight complete. After this time the remaining connections are cut.
    setTimeout(() => store.close().finally(() => process.exit()), SHUTDOWN_TIMEOUT).unref();
    await app.close();
    await store.close();
  };
  process.once("SIGINT", shutDown);
  process.once("SIGTERM", shutDown);
}

/** Wraps an Express app in the interface of Fastify that `serve` uses. */
function expressServer(app) {
  const server = createServer(app);
  return {
    server,
    listen(address) {
      server.listen(address);
      return once(server, "listening");
    },
    close: () => new Promise((resolve) => server.close(resolve)),
  };
}

/** Serves an example until SIGINT or SIGTERM. */
async function serve({ name, sessionsBy, app, store }) {
  if (!Number.isInteger(PORT) || PORT < 0 || PORT > 65535) {
    stop(`PORT must be a number from 0 to 65535, not "${process.env.PORT}".`);
  }
  try {
    await app.listen({ host: HOST, port: PORT });
  } catch (error) {
    stop(explainListenError(error));
  }
  announce(name, app.server.address(), sessionsBy);
  stopGracefully(app, store);
}

module.exports = { expressServer, openOrStop, serve };
