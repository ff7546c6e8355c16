"use strict";

const { commonOptions } = require("./common-options.js");

const WIDTH = 100;

const EXIT_CODES = `Exit codes:
  0  done
  1  the answer is no: nothing was ended, problems were found, a line, a file or a row was refused
  2  wrong usage, of a path or a file too: nothing was done
  3  the store failed, or a file did`;

/** What `native-store --help` prints. */
function generalHelp(commands) {
  return `native-store: looks into a store of @fluidauth/native-store, ends its sessions, checks and copies them

Usage: native-store <command> [options]
       native-store help <command>

Commands:
${table(Object.entries(commands).map(([name, { summary }]) => [name, summary]))}

Options of every command:
${optionTable(commonOptions)}
  -v, --version          the version of this package

All but discard-log work on a store that other processes have open. Only revoke, import and discard-log
change one.

A secret on the command line could be seen by every user of the machine, so there is no option for one. The
password of a Redis server is read from $NATIVE_STORE_REDIS_PASSWORD, or in $NATIVE_STORE_REDIS_URL.
That of the server of an old store is read in $NATIVE_STORE_FROM_URL.
Run this as the user that the app runs as. Root becomes the owner of the store before it opens it.

${EXIT_CODES}
`;
}

/** What `native-store <command> --help` prints. */
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

/** A paragraph in lines that fit a terminal. */
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
