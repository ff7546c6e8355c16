"use strict";

/** The usage of a server, for requests by `cannon.js`. */
class Usage {
  #requests = 0;

  /** Middleware that must come first. */
  count() {
    return (_req, _res, next) => {
      this.#requests++;
      next();
    };
  }

  /** The route `/usage`: CPU time in milliseconds, the current time, and the number of requests. */
  tell() {
    return (_req, res) => {
      const { user, system } = process.cpuUsage();
      res.json({ cpu: (user + system) / 1000, at: performance.now(), requests: this.#requests });
    };
  }
}

module.exports = { Usage };
