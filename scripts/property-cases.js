"use strict";

const fs = require("node:fs");
const path = require("node:path");

const DEFAULT_CASES = Number(process.env.PROPTEST_CASES ?? 256);

/**
 * Returns the `proptest!` blocks of a Rust source. A block ends at the brace with the indentation of its first line.
 */
function blocksOf(source) {
  return [...source.matchAll(/^( *)proptest! \{\n([\s\S]*?)^\1\}$/gm)].map(([, , body]) => body);
}

function casesOf(block) {
  if (!block.includes("proptest_config")) return DEFAULT_CASES;
  const cases = block.match(/with_cases\(([\d_]+)\)|\bcases: ([\d_]+)/);
  if (!cases) throw new Error(`How many cases has this?\n${block}`);
  return Number((cases[1] ?? cases[2]).replaceAll("_", ""));
}

/** Returns how many cases each property in the Rust files below these directories tries. */
function rustProperties(directories) {
  const properties = new Map();
  for (const directory of directories) {
    for (const file of fs.readdirSync(directory, { recursive: true })) {
      if (!file.endsWith(".rs")) continue;
      for (const block of blocksOf(fs.readFileSync(path.join(directory, file), "utf8"))) {
        for (const [, name] of block.matchAll(/^ *fn (\w+)\(/gm)) properties.set(name, casesOf(block));
      }
    }
  }
  return properties;
}

/** Returns the number of cases of the properties that passed, from the output of `cargo test`. */
function rustCases(output, properties) {
  const passed = [...output.matchAll(/^test (?:\w+::)*(\w+) \.\.\. ok$/gm)].map(([, name]) => name);
  return passed.reduce((sum, name) => sum + (properties.get(name) ?? 0), 0);
}

/** Returns the number of cases that JavaScript's properties have printed after passing. */
function javaScriptCases(output) {
  return [...output.matchAll(/\bproperty cases: (\d+)/g)].reduce((sum, [, cases]) => sum + Number(cases), 0);
}

module.exports = { rustProperties, rustCases, javaScriptCases };
