"use strict";

const EXIT = { done: 0, no: 1, usage: 2, failed: 3 };

/** What ends a command with a message for people. */
class Failure extends Error {
  constructor(exitCode, message) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** A signal ended the command. The message, if any, says what it had done by then. */
class Interruption extends Error {}

/** Whoever read the output has had enough of it. */
class ReaderGone extends Error {}

const wrongUsage = (message) => new Failure(EXIT.usage, message);

/** The same failure, with what was done before it: nobody should have to guess. */
function stoppedAfter(error, done) {
  const end = `stopped after ${done}`;
  if (error instanceof Interruption) return new Interruption(end);
  const code = error.code ? ` (${error.code})` : "";
  return new Failure(error.exitCode ?? EXIT.failed, `${error.message}${code}; ${end}`);
}

/** Why a call of the operating system failed, in its own words. */
function reasonOf(error) {
  return /^[A-Z0-9_]+: (.+?), /.exec(error.message)?.[1] ?? error.message;
}

module.exports = { EXIT, Failure, Interruption, ReaderGone, stoppedAfter, wrongUsage, reasonOf };
