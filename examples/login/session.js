"use strict";

const { randomBytes } = require("node:crypto");
const { IdSealer } = require("./sealed-id");

const EXTEND_WITHIN = 4 * 60_000;

/**
 * The example's own session layer, if FluidAuth is not installed. It calls the store like FluidAuth's `Session`:
 * `clean` once, `get` for each request with a cookie, `get` and `update` to extend a session near its end, `create` at
 * login, `delete` at logout and for a session that is gone.
 */
class CookieSession {
  constructor({ store, secret, name, duration, serializeUser, deserializeUser }) {
    this.store = store;
    this.name = name;
    this.duration = duration;
    this.serializeUser = serializeUser;
    this.deserializeUser = deserializeUser;
    this.sealer = new IdSealer(secret);
    const secure = process.env.NODE_ENV === "production";
    this.cookieOptions = { httpOnly: true, sameSite: "strict", secure };
    store.clean().catch((error) => console.error("Removing expired sessions failed:", error));
  }

  /** Middleware that sets `req.session` and `req.user`. It must come after cookie-parser. */
  manage() {
    return async (req, res, next) => {
      req.user = null;
      req.session = {
        create: (user) => this.create(req, res, user),
        destroy: () => this.destroy(req, res),
      };
      try {
        await this.resume(req, res);
      } catch (error) {
        return next(error);
      }
      next();
    };
  }

  async resume(req, res) {
    const cookie = req.cookies[this.name];
    if (!cookie) return;
    const sessionId = this.sealer.open(cookie);
    const session = sessionId && (await this.store.get(sessionId));
    // Await it, so that the cookie is cleared before the response is sent.
    if (!session) return this.destroy(req, res);
    if (Date.parse(session.expires) - Date.now() <= EXTEND_WITHIN) await this.extend(res, sessionId);
    req.user = await this.deserializeUser(session.userId);
  }

  async extend(res, sessionId) {
    const session = await this.store.get(sessionId);
    if (!session) return;
    await this.store.update(sessionId, { ...session, expires: this.expiry() });
    this.setCookie(res, sessionId);
  }

  async create(req, res, user) {
    const sessionId = randomBytes(18).toString("hex");
    const userId = await this.serializeUser(user);
    await this.store.create({ sessionId, userId, expires: this.expiry() });
    this.setCookie(res, sessionId);
    req.user = await this.deserializeUser(userId);
  }

  async destroy(req, res) {
    const cookie = req.cookies[this.name];
    if (!cookie) return;
    const sessionId = this.sealer.open(cookie);
    if (sessionId) await this.store.delete(sessionId);
    res.clearCookie(this.name, this.cookieOptions);
    req.user = null;
  }

  expiry() {
    return new Date(Date.now() + this.duration).toISOString();
  }

  setCookie(res, sessionId) {
    res.cookie(this.name, this.sealer.seal(sessionId), { ...this.cookieOptions, maxAge: this.duration });
  }
}

module.exports = { CookieSession };
