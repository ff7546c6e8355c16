"use strict";

/**
 * The store that this process has open for the calls: `{ store, folder, size, ids, created }`. `ids` are the sessions to
 * read, and `undo` deletes those that are `created`.
 */
const opened = {};

module.exports = { opened };
