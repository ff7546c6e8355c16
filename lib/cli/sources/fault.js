"use strict";

/** A fault of one entry of another store, in words that follow "is". Other entries can still be read. */
class Fault extends Error {}

/** Returns the entry that `read` makes, or an entry with a fault. */
async function entryOf(name, read) {
  try {
    return { name, ...(await read()) };
  } catch (error) {
    if (error instanceof Fault) return { name, fault: error.message };
    throw error;
  }
}

module.exports = { Fault, entryOf };
