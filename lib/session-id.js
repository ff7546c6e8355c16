"use strict";

const MAX_ID_BYTES = 256;

const isShort = (id) => 3 * id.length <= MAX_ID_BYTES || Buffer.byteLength(id) <= MAX_ID_BYTES;

/** Whether a session can have this id. A store refuses to create any other. */
const isPossibleId = (id) => id !== "" && id.isWellFormed() && isShort(id);

module.exports = { isPossibleId };
