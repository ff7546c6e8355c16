"use strict";

const assert = require("node:assert/strict");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { test } = require("node:test");
const { check } = require("../scripts/layers");

const LIB =
  "//! ```text\n//! top\n//! left, right\n//! base\n//! ```\nmod base;\nmod left;\nmod right;\nmod top;\n";

/** Returns the problems that `scripts/layers.js` finds in a crate with these files. */
function problemsOf(context, files) {
  const root = fs.mkdtempSync(path.join(os.tmpdir(), "layers-"));
  context.after(() => fs.rmSync(root, { recursive: true }));
  const all = { "lib.rs": LIB, "base.rs": "", "left.rs": "", "right.rs": "", "top.rs": "", ...files };
  for (const [name, text] of Object.entries(all)) {
    if (`${name.replace(".rs", "")}/mod.rs` in all) continue;
    const file = path.join(root, "src", name);
    fs.mkdirSync(path.dirname(file), { recursive: true });
    fs.writeFileSync(file, text);
  }
  return check(root);
}

test("dependencies that point downwards are no problem", (context) => {
  const files = { "top.rs": "use crate::{base::Base, left};", "left.rs": "fn f() { crate::base::g() }" };
  assert.deepEqual(problemsOf(context, files), []);
});

test("a visibility is not a dependency", (context) => {
  assert.deepEqual(problemsOf(context, { "base.rs": "pub(in crate::top) fn f() {}" }), []);
});

test("a dependency on a higher layer is found, in a use and in a path", (context) => {
  for (const text of [
    "use crate::top::Top;",
    "fn f() { crate::top::g() }",
    "use super::{top::{self, Top as T}};",
  ]) {
    assert.deepEqual(problemsOf(context, { "base.rs": text }), [
      "src/base.rs depends on src/top.rs, against the direction in src/lib.rs",
    ]);
  }
});

test("modules of one layer must not import each other", (context) => {
  assert.deepEqual(problemsOf(context, { "left.rs": "use crate::right::Right;" }), [
    "src/left.rs depends on src/right.rs, against the direction in src/lib.rs",
  ]);
});

test("a module without a layer is found", (context) => {
  assert.deepEqual(problemsOf(context, { "other.rs": "" }), [
    "src/other.rs: src/lib.rs states no layer for it",
  ]);
});

test("a cycle of files is found", (context) => {
  const circle = {
    "base/mod.rs": "mod one;\nmod two;\n",
    "base/one.rs": "use super::two::Two;",
    "base/two.rs": "use crate::base::one::One;",
  };
  const found = problemsOf(context, circle).filter((problem) => problem.startsWith("a circle"));
  assert.deepEqual(found, ["a circle of files: src/base/one.rs -> src/base/two.rs -> src/base/one.rs"]);
});

test("a module that re-exports its children depends on none of them, and its importers depend on the child", (context) => {
  const map = {
    "left/mod.rs": "mod part;\npub use self::part::Part;\n",
    "left/part.rs": "use super::Other;\npub struct Part;",
  };
  assert.deepEqual(problemsOf(context, map), []);
  const upwards = { ...map, "base.rs": "use crate::left::Part;" };
  assert.deepEqual(problemsOf(context, upwards), [
    "src/base.rs depends on src/left/part.rs, against the direction in src/lib.rs",
  ]);
});

test("comments, strings and test code do not count", (context) => {
  const base = [
    "// use crate::top::Top;",
    "/* crate::top::f */",
    'const TEXT: &str = "use crate::top::Top;";',
    "#[cfg(test)]\nmod tests {\n  use crate::top::Top;\n  fn f() {}\n}",
    "#[cfg(test)]\nmod checks;",
  ];
  assert.deepEqual(
    problemsOf(context, { "base.rs": base.join("\n"), "base/checks.rs": "use crate::top::Top;" }),
    [],
  );
});
