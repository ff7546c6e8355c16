"use strict";

const assert = require("node:assert/strict");
const { test } = require("node:test");
const { parse, sentencesOf } = require("../scripts/markdown");
const { measure } = require("../scripts/prose");

const PAGE = `# A heading of four words

One sentence. express-session begins the second one, e.g. here
and goes on. Is \`code. With dots.\` one word?

- An item with a [link](other.md#part).
  - An item in it! And another sentence.

| a table | has no sentences. None at all. |
|---|---|
| [in it](in-a-table.md) | \`x\` |

\`\`\`js
// Code is not prose. It is not counted.
\`\`\`

> A quotation. It has two.

## \`maxBytes\` and <a id="by-hand"></a>more

## \`maxBytes\` and more

![a picture](picture.svg)
`;

test("sentences are in paragraphs, list items and quotations", async () => {
  const { paragraphs } = await parse(PAGE);
  assert.deepEqual(paragraphs.flatMap(sentencesOf), [
    "One sentence.",
    "express-session begins the second one, e.g. here and goes on.",
    "Is Code one word?",
    "An item with a link.",
    "An item in it!",
    "And another sentence.",
    "A quotation.",
    "It has two.",
  ]);
});

test("links are found in text, tables and pictures", async () => {
  assert.deepEqual((await parse(PAGE)).links.sort(), ["in-a-table.md", "other.md#part", "picture.svg"]);
});

test("headings have the anchors that GitHub gives them", async () => {
  const { anchors, headings } = await parse(PAGE);
  assert.deepEqual(
    [...anchors].sort(),
    ["a-heading-of-four-words", "by-hand", "maxbytes-and-more", "maxbytes-and-more-1"].sort(),
  );
  assert.deepEqual(headings[1], { depth: 2, text: "maxBytes and more" });
});

test("a measure counts the words of all text, and has the longest sentence first", async () => {
  const { words, mean, sentences } = await measure(
    "One two three. Four.\n\n| five | six |\n|---|---|\n| `7` | 8 |\n",
  );
  assert.deepEqual(
    { words, mean, longest: sentences[0] },
    { words: 8, mean: 2, longest: { text: "One two three.", words: 3 } },
  );
});
