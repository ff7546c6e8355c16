"use strict";

const MAX_ID_BYTES = 256;

/** Whether a session can have this id. A store refuses to create any other. */
const isPossibleId = (id) => id !== "" && id.isWellFormed() && Buffer.byteLength(id) <= MAX_ID_BYTES;

module.exports = { isPossibleId };
