"use strict";

const { DRIFT } = require("./cookie.js");

/**
 * Derives the last use of a session from its expiry: a request that saves or touches it moves its end to a fixed time
 * from then. Returns `undefined` if that lifetime is unknown or does not explain the expiry.
 * @param {{ session: object, createdAt: Date | null, expiresAt: Date }} entry
 * @param {{ fixedTtl?: number, maxLifetime: number | null }} options
 */
function lastUseOf({ session, createdAt, expiresAt }, { fixedTtl, maxLifetime }) {
  const { expires, originalMaxAge } = session.cookie ?? {};
  const lifetime = expires ? originalMaxAge : fixedTtl;
  if (typeof lifetime !== "number" || !(lifetime > 0)) return undefined;
  const created = createdAt?.getTime() ?? Number.NEGATIVE_INFINITY;
  // `maxLifetime` has set this end.
  if (maxLifetime !== null && expiresAt.getTime() >= created + maxLifetime) return undefined;
  const used = expiresAt.getTime() - lifetime;
  // The app has set another end, or another `ttl`.
  if (used < created - DRIFT || used > Date.now() + DRIFT) return undefined;
  return new Date(Math.max(used, created));
}

module.exports = { lastUseOf };
