"use strict";

/**
 * `store[createAt](session, millis)`: `create` with a creation time, for imports. A future time counts as now. This
 * module does not need the addon, so the command line can print its help without it.
 */
module.exports = { createAt: Symbol("createAt") };
