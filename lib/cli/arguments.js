"use strict";

const { parseArgs } = require("node:util");
const { likelySpelling } = require("../spelling.js");
const { commonOptions } = require("./common-options.js");
const { wrongUsage } = require("./failures.js");

/** Options of other tools that would expose a secret, and what to use here. */
const SECRETS = {
  "--secret": "--secret-file or NATIVE_STORE_SECRET",
  "--password": "NATIVE_STORE_REDIS_PASSWORD",
};

/**
 * Parses the command line: the name of a command, if any, its options and its operands.
 * @param {string[]} argv
 * @param {Record<string, { options: object, operand?: { name: string, isRequired?: boolean } }>} commands
 */
function parseArguments(argv, commands) {
  const tokens = tokensOf(argv, commands);
  const positionals = tokens.filter(({ kind }) => kind === "positional").map(({ value }) => value);
  const isHelp = positionals[0] === "help";
  const words = isHelp ? positionals.slice(1) : positionals;
  const given = tokens.filter(({ kind }) => kind === "option");
  const has = (name) => given.some((option) => option.name === name);

  const name = words[0];
  if (has("version")) return { isVersion: true };
  if (name !== undefined && !Object.hasOwn(commands, name)) throw unknownCommand(name, commands);
  if (isHelp || has("help")) return { isHelp: true, name };

  const command = commands[name];
  const known = { ...command?.options, ...commonOptions };
  const options = readOptions(given, known, name);
  if (name !== undefined) checkOperands(words.slice(1), command.operand, name);
  return { name, options, operand: words[1] };
}

function tokensOf(args, commands) {
  const all = Object.values(commands).map((command) => Object.entries(command.options));
  const options = { help: { type: "boolean", short: "h" }, version: { type: "boolean", short: "v" } };
  for (const [name, { value }] of [...all.flat(), ...Object.entries(commonOptions)]) {
    options[name] ??= { type: value ? "string" : "boolean" };
  }
  return parseArgs({ args, options, strict: false, allowPositionals: true, tokens: true }).tokens;
}

function readOptions(given, known, command) {
  const options = {};
  for (const { name, rawName, value, inlineValue } of given) {
    if (!Object.hasOwn(known, name)) throw unknownOption(rawName, known, command);
    if (Object.hasOwn(options, name)) throw wrongUsage(`${rawName} is given twice`);
    options[name] = known[name].value ? requireValue(rawName, value, inlineValue) : true;
    if (!known[name].value && inlineValue) throw wrongUsage(`${rawName} takes no value`);
  }
  return options;
}

/** Throws if an option has no value. A forgotten value must not swallow the next option. */
function requireValue(option, value, isInline) {
  if (value === undefined) throw wrongUsage(`${option} needs a value`);
  if (isInline || value === "-" || !value.startsWith("-")) return value;
  throw wrongUsage(`${option} needs a value; write a value that starts with - as ${option}=${value}`);
}

function checkOperands(given, operand, command) {
  if (operand?.isRequired && given.length === 0) {
    throw wrongUsage(`${command} needs a <${operand.name}>: native-store ${command} --help`);
  }
  const surplus = given[operand ? 1 : 0];
  if (surplus !== undefined) throw wrongUsage(`${command} takes no argument ${JSON.stringify(surplus)}`);
}

function unknownCommand(given, commands) {
  if (given === "clear") return wrongUsage("there is no command clear: revoke --all ends all sessions");
  const likely = likelySpelling(given, Object.keys(commands));
  const hint = likely ? `did you mean ${likely}?` : `the commands are ${Object.keys(commands).join(", ")}`;
  return wrongUsage(`unknown command ${JSON.stringify(given)}: ${hint}`);
}

function unknownOption(given, known, command) {
  const instead = SECRETS[given];
  if (instead) {
    return wrongUsage(
      `${given} is not supported, because every user of the machine can see the command line: use ${instead}`,
    );
  }
  const names = Object.keys(known).map((name) => `--${name}`);
  const likely = likelySpelling(given, names);
  const hint = likely ? `did you mean ${likely}?` : `the options are ${names.join(", ")}`;
  return wrongUsage(`unknown option ${JSON.stringify(given)}${command ? ` of ${command}` : ""}: ${hint}`);
}

module.exports = { parseArguments };
