"use strict";

const { AsyncLocalStorage } = require("node:async_hooks");
const { deviceName } = require("../shared/device");

/**
 * A store that adds two fields of the app's own to every session, and knows which session the current request has.
 * A session layer hands its store no request, hence the AsyncLocalStorage.
 */
const withDevices = (Store) =>
  class DeviceStore extends Store {
    #requests = new AsyncLocalStorage();

    /** Middleware that goes before the session's. */
    trackRequests() {
      return (req, _res, next) => {
        const context = { device: deviceName(req.headers["user-agent"]), sessionId: null };
        this.#requests.run(context, next);
      };
    }

    /** The id of the session that the current request belongs to, or `null`. */
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
