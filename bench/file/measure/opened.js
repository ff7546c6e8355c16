"use strict";

/**
 * The open store of this process: `{ store, folder, size, ids, created }`. `ids`: the sessions to read. `undo` deletes
 * the `created` ones.
 */
const opened = {};

module.exports = { opened };
