"use strict";

/**
 * `store[createAt](session, millis)`: `create` of a session that was created at that time, for imports. A time that is yet
 * to come counts as the present. It is here, as the command line prints its help without the addon.
 */
module.exports = { createAt: Symbol("createAt") };
