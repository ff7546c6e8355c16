"use strict";

/** Returns the known word that `word` probably means, or `undefined` if none is close. */
function likelySpelling(word, known) {
  return known
    .map((candidate) => ({ candidate, distance: editDistance(word.toLowerCase(), candidate.toLowerCase()) }))
    .filter(({ candidate, distance }) => distance <= farthest(word, candidate))
    .sort((one, other) => one.distance - other.distance)[0]?.candidate;
}

/** The maximum distance of a misspelling. It is small for short words, where half of the letters make another word. */
function farthest(word, candidate) {
  return Math.min(word.length, candidate.length) <= 3 ? 1 : Math.max(2, candidate.length / 3);
}

/** The Levenshtein distance: how many letters to insert, delete or replace. */
function editDistance(one, other) {
  let row = Array.from({ length: other.length + 1 }, (_, at) => at);
  for (let i = 0; i < one.length; i++) {
    const next = [i + 1];
    for (let j = 0; j < other.length; j++) {
      next.push(Math.min(row[j + 1] + 1, next[j] + 1, row[j] + (one[i] === other[j] ? 0 : 1)));
    }
    row = next;
  }
  return row[other.length];
}

module.exports = { likelySpelling };
