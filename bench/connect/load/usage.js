"use strict";

/** What a server has used, for `cannon.js` to ask. */
class Usage {
  #requests = 0;

  /** Middleware that goes first. */
  count() {
    return (_req, _res, next) => {
      this.#requests++;
      next();
    };
  }

  /** The route `/usage`: milliseconds of all processors, by when, and for how many requests. */
  tell() {
    return (_req, res) => {
      const { user, system } = process.cpuUsage();
      res.json({ cpu: (user + system) / 1000, at: performance.now(), requests: this.#requests });
    };
  }
}

module.exports = { Usage };
