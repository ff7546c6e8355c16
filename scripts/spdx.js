"use strict";

/** The licences that the package may contain, in the order of preference. */
const ALLOWED = [
  "MIT",
  "Apache-2.0",
  "BSD-3-Clause",
  "BSD-2-Clause",
  "ISC",
  "Zlib",
  "0BSD",
  "Unlicense",
  "Unicode-3.0",
  "BSL-1.0",
  // For data: the certificates of the Web's authorities.
  "CDLA-Permissive-2.0",
];

/**
 * Chooses licences from an SPDX expression, the preferred one of alternatives. Returns `null` if no choice is allowed.
 */
function choose(expression) {
  // Older Cargo manifests write a slash for OR.
  const tokens = (expression ?? "").replaceAll("/", " OR ").match(/[()]|[^\s()]+/g) ?? [];
  const parser = { tokens, at: 0 };
  const choice = parseOr(parser);
  if (parser.at < tokens.length) throw new SyntaxError(`not an SPDX expression: ${expression}`);
  return choice;
}

function parseOr(parser) {
  const choices = [parseAnd(parser)];
  while (takes(parser, "OR")) choices.push(parseAnd(parser));
  return choices.filter(Boolean).sort((one, other) => rank(one) - rank(other))[0] ?? null;
}

function parseAnd(parser) {
  const parts = [parseTerm(parser)];
  while (takes(parser, "AND")) parts.push(parseTerm(parser));
  return parts.includes(null) ? null : parts.flat();
}

function parseTerm(parser) {
  if (takes(parser, "(")) {
    const inner = parseOr(parser);
    if (!takes(parser, ")")) throw new SyntaxError("not an SPDX expression: a ) is missing");
    return inner;
  }
  const license = parser.tokens[parser.at++];
  // An exception only adds permissions, but it changes the text, so it needs its own entry in the list.
  if (takes(parser, "WITH")) {
    parser.at++;
    return null;
  }
  return ALLOWED.includes(license) ? [license] : null;
}

function takes(parser, token) {
  const found = parser.tokens[parser.at] === token;
  if (found) parser.at++;
  return found;
}

const rank = (licenses) => Math.max(...licenses.map((license) => ALLOWED.indexOf(license)));

module.exports = { choose };
