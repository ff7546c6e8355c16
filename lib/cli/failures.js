"use strict";

const EXIT = { done: 0, no: 1, usage: 2, failed: 3 };

/** Ends a command with a message and an exit code. */
class Failure extends Error {
  constructor(exitCode, message) {
    super(message);
    this.exitCode = exitCode;
  }
}

/** A signal ended the command. The message, if any, says what it had done. */
class Interruption extends Error {}

/** The reader of the output has closed the pipe. */
class ReaderGone extends Error {}

const wrongUsage = (message) => new Failure(EXIT.usage, message);

/** Returns the failure with a message that says what was done before it. */
function stoppedAfter(error, done) {
  const end = `stopped after ${done}`;
  if (error instanceof Interruption) return new Interruption(end);
  const code = error.code ? ` (${error.code})` : "";
  return new Failure(error.exitCode ?? EXIT.failed, `${error.message}${code}; ${end}`);
}

/** Returns the operating system's reason for a failed call. */
function reasonOf(error) {
  return /^[A-Z0-9_]+: (.+?), /.exec(error.message)?.[1] ?? error.message;
}

module.exports = { EXIT, Failure, Interruption, ReaderGone, stoppedAfter, wrongUsage, reasonOf };
