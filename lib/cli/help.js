"use strict";

const { commonOptions } = require("./common-options.js");

const WIDTH = 100;

const EXIT_CODES = `Exit codes:
  0  done
  1  negative result: nothing was ended, problems were found, a line, a file or a row was refused
  2  wrong usage, also of a path or a file: nothing was done
  3  the store or a file failed`;

/** Returns the text of `native-store --help`. */
function generalHelp(commands) {
  return `native-store: inspect, revoke, verify, back up and migrate sessions of @fluidauth/native-store

Usage: native-store <command> [options]
       native-store help <command>

Commands:
${table(Object.entries(commands).map(([name, { summary }]) => [name, summary]))}

Options of every command:
${optionTable(commonOptions)}
  -v, --version          the version of this package

All commands but discard-log work while your app uses the store. Only revoke, import and discard-log
change it.

Every user of the machine can see the command line, so no option takes a secret. The password of a Redis
server is in $NATIVE_STORE_REDIS_PASSWORD or $NATIVE_STORE_REDIS_URL. The password of the server of an old
store is in $NATIVE_STORE_FROM_URL.
Run this as the user that the app runs as. Root becomes the owner of the store before it opens it.

${EXIT_CODES}
`;
}

/** Returns the text of `native-store <command> --help`. */
function commandHelp(name, { summary, usage, about, options }) {
  const own = Object.keys(options).length > 0 ? `\nOptions:\n${optionTable(options)}\n` : "";
  return `native-store ${name}: ${summary}

Usage:
${usage.map((line) => `  native-store ${name} ${line}`.trimEnd()).join("\n")}

${about.map(fold).join("\n\n")}
${own}
Options of every command:
${optionTable(commonOptions)}

${EXIT_CODES}
`;
}

function optionTable(options) {
  return table(
    Object.entries(options).map(([name, { value, help }]) => [`--${name}${value ? ` ${value}` : ""}`, help]),
  );
}

const table = (rows) => rows.map(([term, meaning]) => `  ${term.padEnd(21)}  ${meaning}`).join("\n");

/** Wraps a paragraph to the width of a terminal. */
function fold(paragraph) {
  const lines = [""];
  for (const word of paragraph.split(" ")) {
    const line = lines.at(-1);
    if (line.length + 1 + word.length > WIDTH) lines.push(word);
    else lines[lines.length - 1] = line === "" ? word : `${line} ${word}`;
  }
  return lines.join("\n");
}

module.exports = { generalHelp, commandHelp };
