"use strict";

// `npm run prose`: prints the lengths of the pages for readers, and of their sentences. `--check` fails if a sentence
// is too long. Tables, code and headings have no sentences.
const { countWords, pages, parse, readPage, sentencesOf } = require("./markdown");

const MAX_WORDS = 25;

/** Returns the number of words of a Markdown text, and its sentences, the longest first. */
async function measure(markdown) {
  const { paragraphs, words } = await parse(markdown);
  const sentences = paragraphs
    .flatMap(sentencesOf)
    .map((text) => ({ text, words: countWords(text) }))
    .sort((one, other) => other.words - one.words);
  const inSentences = sentences.reduce((sum, sentence) => sum + sentence.words, 0);
  return { words, sentences, mean: sentences.length === 0 ? 0 : inSentences / sentences.length };
}

function row(page, words, mean, longest) {
  return `${page.padEnd(26)} ${String(words).padStart(6)} ${String(mean).padStart(6)} ${String(longest).padStart(8)}`;
}

async function main() {
  const isCheck = process.argv.includes("--check");
  const tooLong = [];
  if (!isCheck) console.log(row("words", "words", "mean", "longest").replace("words", "page "));
  for (const page of pages()) {
    const { words, mean, sentences } = await measure(readPage(page));
    if (!isCheck) console.log(row(page, words, mean.toFixed(1), sentences[0]?.words ?? 0));
    for (const sentence of sentences.filter((each) => each.words > MAX_WORDS))
      tooLong.push({ page, ...sentence });
  }
  if (!isCheck) return 0;
  for (const { page, words, text } of tooLong)
    console.error(`${page}: ${words} words, at most ${MAX_WORDS}: ${text}`);
  return tooLong.length === 0 ? 0 : 1;
}

if (require.main === module) {
  main().then((code) => {
    process.exitCode = code;
  });
}

module.exports = { measure };
