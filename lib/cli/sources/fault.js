"use strict";

/** What is wrong with one session of another store, in words that follow "is". Those beside it can be read. */
class Fault extends Error {}

/** The entry of a source that `read` makes, or one that says what is wrong with it. */
async function entryOf(name, read) {
  try {
    return { name, ...(await read()) };
  } catch (error) {
    if (error instanceof Fault) return { name, fault: error.message };
    throw error;
  }
}

module.exports = { Fault, entryOf };
