"use strict";

const { EventEmitter } = require("node:events");
const { SessionStoreError } = require("../errors.js");

/** express-session's own base class, where it is installed: it has `load`, `regenerate` and `createSession`. */
function findBase() {
  const paths = [__dirname, process.cwd()];
  try {
    return require(require.resolve("express-session", { paths })).Store;
  } catch (error) {
    if (error.code !== "MODULE_NOT_FOUND") throw error;
    return StoreWithoutExpress;
  }
}

/** For @fastify/session, which asks for less. */
class StoreWithoutExpress extends EventEmitter {
  createSession() {
    throw new SessionStoreError(
      "ERR_INVALID_OPTION",
      "express-session is not where @fluidauth/native-store can find it; install both in the same project",
    );
  }
}

module.exports = { Base: findBase() };
