"use strict";

const crypto = require("node:crypto");

/**
 * A stand-in for the `Session` of `@fluidauth/express` 1.1.10, which is in no registry: the same calls in the same
 * order, with the same two bugs. Both are marked.
 */
class FluidAuthSession {
  constructor({ store, secret = "a secret", name = "fluid-auth-session", cookie = {}, duration = 60_000 }) {
    this.store = store;
    this.sessionInfo = { name, secret };
    this.cookieOption = { maxAge: duration, httpOnly: true, secure: false, sameSite: "strict", ...cookie };
    this.sessionDuration = duration;
    this.serializeUser = (user) => user.id;
    this.deserializeUser = async (id) => ({ id });
  }

  async manageSession(req, res, next) {
    req.session = {
      user: null,
      create: this.createSession.bind(this, req, res),
      destroy: this.destroySession.bind(this, req, res),
    };
    const cookie = req.cookies[this.sessionInfo.name];
    if (!cookie) return next();
    try {
      const data = await this.store.get(this.decryptSessionId(cookie));
      if (data === null) {
        this.destroySession(req, res); // Fault 1: not awaited, so it clears the cookie of an answer already sent.
        return next();
      }
      if (Date.parse(data.expires) <= Date.now()) {
        await this.destroySession(req, res);
        return next();
      }
      req.session.user = await this.deserializeUser(data.userId);
      req.user = req.session.user;
      next();
    } catch (error) {
      await this.destroySession(req, res); // Fault 2: fails on the cookie that has just failed.
      next(error);
    }
  }

  async createSession(req, res, user) {
    const sessionId = crypto.randomBytes(18).toString("hex");
    const expires = new Date(Date.now() + this.sessionDuration).toISOString();
    const userId = this.serializeUser(user);
    await this.store.create({ sessionId, expires, userId });
    req.session.user = await this.deserializeUser(userId);
    req.user = req.session.user;
    res.cookie(this.sessionInfo.name, this.encryptSessionId(sessionId), this.cookieOption);
  }

  async destroySession(req, res) {
    if (res.headersSent) return;
    const cookie = req.cookies[this.sessionInfo.name];
    if (!cookie) return;
    await this.store.delete(this.decryptSessionId(cookie));
    res.clearCookie(this.sessionInfo.name);
    req.user = null;
    req.session.user = null;
  }

  encryptSessionId(id) {
    const iv = crypto.randomBytes(16);
    const cipher = crypto.createCipheriv("aes-256-cbc", this.#key(), iv);
    return `${iv.toString("hex")}:${cipher.update(id, "utf8", "hex")}${cipher.final("hex")}`;
  }

  decryptSessionId(cookie) {
    const [iv, text] = cookie.split(":");
    const decipher = crypto.createDecipheriv("aes-256-cbc", this.#key(), Buffer.from(iv, "hex"));
    return decipher.update(text, "hex", "utf8") + decipher.final("utf8");
  }

  #key() {
    return crypto.createHash("sha256").update(this.sessionInfo.secret).digest();
  }
}

/** The same as `AuthService` of `@fluidauth/express`. */
class FluidAuthService {
  #session;

  constructor({ session }) {
    this.#session = session;
  }

  serializeUser(serialize) {
    this.#session.serializeUser = serialize;
  }

  deserializeUser(deserialize) {
    this.#session.deserializeUser = deserialize;
  }

  session() {
    return this.#session.manageSession.bind(this.#session);
  }

  initialize() {
    return (req, _res, next) => {
      req.login = async (user) => req.session.create(user);
      req.logout = async () => req.session.destroy();
      next();
    };
  }
}

module.exports = { FluidAuthService, FluidAuthSession };
