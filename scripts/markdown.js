"use strict";

// Parses Markdown for the checks of the documentation. The parser and GitHub's rule for anchors are ES modules.
const fs = require("node:fs");
const path = require("node:path");

const ROOT = path.join(__dirname, "..");

// Abbreviations whose dot does not end a sentence.
const ABBREVIATION = /\b(?:e\.g|i\.e|etc|vs|cf)\.$/i;

/** Returns README, all pages of docs/, and the other pages for readers, as paths from the root of the repository. */
function pages() {
  const inFolder = (folder) =>
    fs
      .readdirSync(path.join(ROOT, folder))
      .filter((file) => file.endsWith(".md"))
      .sort()
      .map((file) => `${folder}/${file}`);
  const examples = ["examples", "examples/minimal", "examples/typescript", "examples/deploy"];
  return [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    ...["docs", ...examples].flatMap(inFolder),
  ];
}

const readPage = (page) => fs.readFileSync(path.join(ROOT, page), "utf8");

/** Returns the prose, words, links, headings and anchors of a Markdown text. */
async function parse(markdown) {
  const [{ marked }, { default: Slugger }] = await Promise.all([import("marked"), import("github-slugger")]);
  const tokens = marked.lexer(markdown);
  const slugger = new Slugger();
  const found = { paragraphs: paragraphsOf(tokens), words: 0, links: [], headings: [], anchors: new Set() };
  marked.walkTokens(tokens, (token) => {
    if (token.type === "link" || token.type === "image") found.links.push(token.href);
    if (token.type === "heading") {
      const text = plainText(token.tokens, (code) => code);
      found.headings.push({ depth: token.depth, text });
      found.anchors.add(slugger.slug(text));
    }
    if (token.type === "html") {
      for (const [, id] of token.raw.matchAll(/\s(?:id|name)="([^"]+)"/g)) found.anchors.add(id);
    }
    if (token.type === "paragraph" || token.type === "heading")
      found.words += countWords(plainText(token.tokens));
    if (token.type === "list_item") found.words += countWords(ownText(token));
    if (token.type === "table") {
      for (const cell of [token.header, ...token.rows].flat())
        found.words += countWords(plainText(cell.tokens));
    }
  });
  return found;
}

/** Returns the texts with sentences: paragraphs and list items, without tables, code and headings. */
function paragraphsOf(tokens) {
  return tokens.flatMap((token) => {
    if (token.type === "paragraph") return [plainText(token.tokens)];
    if (token.type === "blockquote") return paragraphsOf(token.tokens);
    if (token.type === "list")
      return token.items.flatMap((item) => [ownText(item), ...paragraphsOf(item.tokens)]);
    return [];
  });
}

/** Returns the text of a list item, without nested lists. */
const ownText = ({ tokens }) => plainText(tokens.filter(({ type }) => type === "text"));

/** Returns the plain text. A code span counts as one word. */
function plainText(tokens, ofCode = () => "Code") {
  return tokens
    .map((token) => {
      if (token.type === "codespan") return ofCode(token.text);
      if (token.type === "image" || token.type === "html") return "";
      if (token.type === "br") return " ";
      return token.tokens ? plainText(token.tokens, ofCode) : (token.text ?? "");
    })
    .join("");
}

/** Returns the sentences of a paragraph. A sentence may start with a lower-case name. */
function sentencesOf(paragraph) {
  const sentences = [];
  let unfinished = "";
  for (const part of paragraph.split(/(?<=[.!?][)"'’”]*)\s+/)) {
    unfinished = unfinished === "" ? part : `${unfinished} ${part}`;
    if (ABBREVIATION.test(part)) continue;
    sentences.push(unfinished);
    unfinished = "";
  }
  return [...sentences, unfinished]
    .map((text) => text.replace(/\s+/g, " ").trim())
    .filter((text) => text !== "");
}

const countWords = (text) => text.split(/\s+/).filter((word) => /[\p{L}\p{N}]/u.test(word)).length;

module.exports = { ROOT, countWords, pages, parse, readPage, sentencesOf };
