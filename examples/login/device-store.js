"use strict";

const { AsyncLocalStorage } = require("node:async_hooks");
const { deviceName } = require("../shared/device");

/**
 * Returns a store that adds two of the app's own fields to every session, and knows the session of the current request.
 * A session layer passes no request to its store, so this uses AsyncLocalStorage.
 */
const withDevices = (Store) =>
  class DeviceStore extends Store {
    #requests = new AsyncLocalStorage();

    /** Middleware that must come before the session layer's. */
    trackRequests() {
      return (req, _res, next) => {
        const context = { device: deviceName(req.headers["user-agent"]), sessionId: null };
        this.#requests.run(context, next);
      };
    }

    /** The id of the current request's session, or `null`. */
    get currentSessionId() {
      return this.#requests.getStore()?.sessionId ?? null;
    }

    async create(session) {
      const context = this.#requests.getStore();
      const device = context?.device ?? "Unknown device";
      await super.create({ ...session, device, since: new Date().toISOString() });
      if (context) context.sessionId = session.sessionId;
    }

    async get(sessionId) {
      const session = await super.get(sessionId);
      const context = this.#requests.getStore();
      if (session && context) context.sessionId = sessionId;
      return session;
    }

    async delete(sessionId) {
      const context = this.#requests.getStore();
      if (context?.sessionId === sessionId) context.sessionId = null;
      await super.delete(sessionId);
    }
  };

module.exports = { withDevices };
