"use strict";

// Loaded before an app from a page: it listens on a free port, whichever it asks for, and says which.

const { Server } = require("node:net");

const { listen } = Server.prototype;

Server.prototype.listen = function (...args) {
  const callback = args.at(-1);
  this.once("listening", () => process.send({ port: this.address().port }));
  return listen.call(this, 0, "127.0.0.1", ...(typeof callback === "function" ? [callback] : []));
};
