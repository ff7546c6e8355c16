"use strict";

const { version } = require("../../package.json");
const { parseArguments } = require("./arguments.js");
const { commands } = require("./commands.js");
const { EXIT, Failure, Interruption, ReaderGone, wrongUsage } = require("./failures.js");
const { commandHelp, generalHelp } = require("./help.js");
const { Output } = require("./output.js");
const { escapeUnsafe } = require("./show.js");
const { Task } = require("./task.js");

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"];

async function main(argv) {
  // The reader may be gone, and there is no other place to report that.
  process.stderr.on("error", () => {});
  try {
    process.exitCode = await answer(argv);
  } catch (error) {
    process.exitCode = report(ofSecrets(error));
  }
}

/** Turns a missing or wrong secret into wrong usage, with the options of the command. */
function ofSecrets(error) {
  const { code, message } = error;
  if (code !== "ERR_INVALID_OPTION" || !message.startsWith("secret ")) return error;
  return wrongUsage(`${message}: use --secret-file or NATIVE_STORE_SECRET`);
}

async function answer(argv) {
  const { name, options, operand, isHelp, isVersion } = parseArguments(argv, commands);
  if (isVersion) return print(version);
  if (isHelp) return print(name ? commandHelp(name, commands[name]) : generalHelp(commands));
  if (name === undefined) {
    process.stderr.write(generalHelp(commands));
    return EXIT.usage;
  }
  return run(commands[name], { options, operand });
}

async function print(text) {
  const output = new Output(process.stdout);
  await output.line(text.trimEnd());
  await output.finish();
  return EXIT.done;
}

async function run(command, given) {
  const task = new Task({ ...given, stdout: process.stdout, stderr: process.stderr });
  const signals = catchSignals(() => task.interrupt());
  try {
    return (await command.run(task)) ?? EXIT.done;
  } catch (error) {
    if (!(error instanceof Interruption)) throw error;
    await task.cleanUp();
    if (error.message) report(error);
    // End by the signal itself, so that a shell stops its script.
    process.kill(process.pid, signals.received);
    return EXIT.failed;
  } finally {
    signals.release();
    await task.cleanUp();
  }
}

/** Calls `stop` at the first signal. The next one ends the process immediately. */
function catchSignals(stop) {
  const signals = { received: null, release };
  const take = (signal) => {
    signals.received = signal;
    release();
    stop();
  };
  function release() {
    for (const signal of SIGNALS) process.removeListener(signal, take);
  }
  for (const signal of SIGNALS) process.on(signal, take);
  return signals;
}

/** Prints the error in one line, and returns the exit code. */
function report(error) {
  if (error instanceof ReaderGone) return EXIT.done;
  const code = error.name === "SessionStoreError" ? ` (${error.code})` : "";
  process.stderr.write(`native-store: ${escapeUnsafe(`${error.message}${code}`)}\n`);
  return error instanceof Failure ? error.exitCode : EXIT.failed;
}

module.exports = { main };
