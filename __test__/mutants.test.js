"use strict";

const assert = require("node:assert/strict");
const { describe, test } = require("node:test");
const { MUTANTS, mutate, mutateAll } = require("../scripts/mutants");

const mutant = (name, ...edits) => ({ name, file: "a.rs", edits });

describe("the mutants", () => {
  test("fit the code", () => {
    const files = mutateAll();
    for (const { name, file } of MUTANTS) {
      const lines = files.get(file).split("\n");
      const inCode = lines.filter((line) => line.includes(`"${name}"`) && !line.trim().startsWith("//"));
      assert.ok(inCode.length > 0, `${name} is not in the code of ${file}`);
    }
  });

  test("have unique names", () => {
    assert.equal(new Set(MUTANTS.map(({ name }) => name)).size, MUTANTS.length);
  });
});

describe("mutate", () => {
  const SOURCE = "if first() { second() }";

  test("inserts all mutants into a source, each with its switch", () => {
    const mutants = [
      mutant("late", ["second()", "if !MUTANT { second() }"]),
      mutant("early", ["if first()", "if first() || MUTANT"]),
    ];
    assert.equal(
      mutate(SOURCE, mutants),
      'if first() || crate::is_mutant("early") { if !crate::is_mutant("late") { second() } }',
    );
  });

  test("refuses a text that is missing or occurs twice", () => {
    for (const [text, count] of [
      ["third()", 0],
      ["()", 2],
    ]) {
      assert.throws(
        () => mutate(SOURCE, [mutant("lost", [text, "MUTANT"])]),
        new RegExp(`the mutant lost does not fit a\\.rs: .* occurs ${count} times`),
      );
    }
  });

  test("refuses mutants that change the same text", () => {
    const mutants = [mutant("one", ["first() {", "MUTANT"]), mutant("two", ["{ second", "MUTANT"])];
    assert.throws(() => mutate(SOURCE, mutants), /one and two change the same text/);
  });

  test("refuses a mutant without a switch", () => {
    assert.throws(() => mutate(SOURCE, [mutant("fixed", ["second()", ""])]), /fixed cannot be switched off/);
  });
});
