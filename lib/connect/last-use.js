"use strict";

const { DRIFT } = require("./cookie.js");

/**
 * When a session was last used, as its expiry says: a request that saves or touches a session moves its end to a fixed
 * time from then. Returns `undefined` where that time is not known, or the end says something else.
 * @param {{ session: object, createdAt: Date | null, expiresAt: Date }} entry
 * @param {{ fixedTtl?: number, maxLifetime: number | null }} options
 */
function lastUseOf({ session, createdAt, expiresAt }, { fixedTtl, maxLifetime }) {
  const { expires, originalMaxAge } = session.cookie ?? {};
  const lifetime = expires ? originalMaxAge : fixedTtl;
  if (typeof lifetime !== "number" || !(lifetime > 0)) return undefined;
  const created = createdAt?.getTime() ?? Number.NEGATIVE_INFINITY;
  // This end is that of the session's lifetime.
  if (maxLifetime !== null && expiresAt.getTime() >= created + maxLifetime) return undefined;
  const used = expiresAt.getTime() - lifetime;
  // An app has set another end, or another `ttl`.
  if (used < created - DRIFT || used > Date.now() + DRIFT) return undefined;
  return new Date(Math.max(used, created));
}

module.exports = { lastUseOf };
