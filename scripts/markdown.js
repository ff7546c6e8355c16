"use strict";

// What the checks of the documentation read in Markdown. The parser and GitHub's rule for anchors are ES modules.
const fs = require("node:fs");
const path = require("node:path");

const ROOT = path.join(__dirname, "..");
const DOCS = path.join(ROOT, "docs");

// Abbreviations whose dot ends no sentence.
const ABBREVIATION = /\b(?:e\.g|i\.e|etc|vs|cf)\.$/i;

/** README and all pages of docs/, as paths from the root of the repository. */
function pages() {
  const inDocs = fs.readdirSync(DOCS).filter((file) => file.endsWith(".md"));
  return ["README.md", ...inDocs.sort().map((file) => `docs/${file}`)];
}

const readPage = (page) => fs.readFileSync(path.join(ROOT, page), "utf8");

/** What a Markdown text has: its prose, its words, its links, its headings and the anchors that a link may name. */
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

/** The texts that consist of sentences: paragraphs and items of lists, without tables, code and headings. */
function paragraphsOf(tokens) {
  return tokens.flatMap((token) => {
    if (token.type === "paragraph") return [plainText(token.tokens)];
    if (token.type === "blockquote") return paragraphsOf(token.tokens);
    if (token.type === "list")
      return token.items.flatMap((item) => [ownText(item), ...paragraphsOf(item.tokens)]);
    return [];
  });
}

/** The text that stands in an item of a list itself. */
const ownText = ({ tokens }) => plainText(tokens.filter(({ type }) => type === "text"));

/** The text as it is read. Code counts as one word, whatever is in it. */
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

/** The sentences of a paragraph. A sentence may begin with a name in lower case. */
function sentencesOf(paragraph) {
  const sentences = [];
  let begun = "";
  for (const part of paragraph.split(/(?<=[.!?][)"'’”]*)\s+/)) {
    begun = begun === "" ? part : `${begun} ${part}`;
    if (ABBREVIATION.test(part)) continue;
    sentences.push(begun);
    begun = "";
  }
  return [...sentences, begun].map((text) => text.replace(/\s+/g, " ").trim()).filter((text) => text !== "");
}

const countWords = (text) => text.split(/\s+/).filter((word) => /[\p{L}\p{N}]/u.test(word)).length;

module.exports = { ROOT, countWords, pages, parse, readPage, sentencesOf };
