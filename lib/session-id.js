"use strict";

const MAX_ID_BYTES = 256;

const isShort = (id) => 3 * id.length <= MAX_ID_BYTES || Buffer.byteLength(id) <= MAX_ID_BYTES;

/** Whether the id is valid. A store refuses to create a session with any other. */
const isPossibleId = (id) => id !== "" && id.isWellFormed() && isShort(id);

module.exports = { isPossibleId };
