"use strict";

// The descriptions that an editor shows for each public name: the quick info of TypeScript's language service.

const assert = require("node:assert/strict");
const fs = require("node:fs");
const path = require("node:path");
const { describe, it } = require("node:test");
// Since version 7 the compiler has no language service.
const ts = require("@tsd/typescript");

const ROOT = path.join(__dirname, "..");
const ENTRIES = ["index.d.ts", "connect.d.ts"].map((name) => path.join(ROOT, name));
const CLASSES = ["ConnectStore", "FileStore", "MemoryStore", "RedisStore", "SessionStoreError"];
const TAGS = new Set(["default", "example", "param", "returns", "see", "throws", "typeParam"]);

// An app that creates an object of each class.
const APP = path.join(__dirname, "types", "hover.mts");
const IMPORT = `import { ${CLASSES.join(", ")} } from "@fluidauth/native-store";\n`;
const APP_TEXT = IMPORT + CLASSES.map((name) => `new ${name}();`).join("\n");

const options = {
  module: ts.ModuleKind.Node16,
  moduleResolution: ts.ModuleResolutionKind.Node16,
  target: ts.ScriptTarget.ES2022,
  strict: true,
  types: ["node"],
};
const textOf = (file) => (file === APP ? APP_TEXT : fs.readFileSync(file, "utf8"));
const service = ts.createLanguageService({
  getCompilationSettings: () => options,
  getScriptFileNames: () => [APP, ...ENTRIES],
  getScriptVersion: () => "1",
  getScriptSnapshot: (file) =>
    file === APP || fs.existsSync(file) ? ts.ScriptSnapshot.fromString(textOf(file)) : undefined,
  getCurrentDirectory: () => path.dirname(APP),
  getDefaultLibFileName: ts.getDefaultLibFilePath,
  fileExists: ts.sys.fileExists,
  readFile: ts.sys.readFile,
  directoryExists: ts.sys.directoryExists,
  realpath: ts.sys.realpath,
});

/** Returns the quick info at a position: the text, and the tags below it. */
function hoverAt(file, position) {
  const info = service.getQuickInfoAtPosition(file, position);
  assert.ok(info, `nothing is shown at ${file}:${position}`);
  const tags = (info.tags ?? []).map(({ name, text }) => ({ name, text: ts.displayPartsToString(text) }));
  return { text: ts.displayPartsToString(info.documentation), tags };
}

function assertReadsWell({ text, tags }) {
  assert.notEqual(text, "", "no description");
  assert.match(text, /[.:!?)`"']$/, `the description is cut off: ${text}`);
  assert.equal(text.split("`").length % 2, 1, `a name is not closed: ${text}`);
  for (const { name, text } of tags) {
    assert.ok(TAGS.has(name), `a description became the tag @${name}: ${text}`);
    assert.notEqual(text, "", `nothing is said of @${name}`);
  }
}

const isExported = (node) =>
  node.modifiers?.some((modifier) => modifier.kind === ts.SyntaxKind.ExportKeyword) ?? false;

/** Returns the public names of a file with their positions. */
function* namesIn(file) {
  const source = service.getProgram().getSourceFile(file);
  for (const statement of source.statements) {
    if (!isExported(statement) || statement.name === undefined) continue;
    const name = statement.name.getText();
    yield { name, position: statement.name.getStart() };
    for (const { name: member, type } of membersOf(statement)) {
      const isHidden = member === undefined || ts.isComputedPropertyName(member);
      if (isHidden || type?.kind === ts.SyntaxKind.NeverKeyword) continue;
      yield { name: `${name}.${member.getText()}`, position: member.getStart() };
    }
  }
}

/** Returns the members of a declaration, including those of its object types. */
function membersOf(node) {
  const own = node.members ?? [];
  const types = [];
  ts.forEachChild(node, function visit(child) {
    if (ts.isTypeLiteralNode(child) && ts.isTypeAliasDeclaration(node)) types.push(...child.members);
    else if (!ts.isParameter(child)) ts.forEachChild(child, visit);
  });
  return [...own, ...types];
}

describe("an editor describes", () => {
  for (const file of ENTRIES) {
    for (const { name, position } of namesIn(file)) {
      // Twice if a class has an interface with its name.
      it(`${path.basename(file)}: ${name}`, () => assertReadsWell(hoverAt(file, position)));
    }
  }

  for (const name of CLASSES) {
    it(`new ${name}(), with an example and a link`, () => {
      const hover = hoverAt(APP, APP_TEXT.indexOf(`new ${name}(`) + "new ".length);
      assertReadsWell(hover);
      const tags = hover.tags.map((tag) => tag.name);
      assert.ok(tags.includes("example"), "no example");
      assert.ok(tags.includes("see"), "no link");
      const summary = hover.text.split("\n")[0];
      assert.ok(summary.length <= 120, `a long summary: ${summary}`);
    });
  }

  it("no empty or incomplete text, or this suite fails", () => {
    for (const text of ["", "A session of", "Of `express-session"]) {
      assert.throws(() => assertReadsWell({ text, tags: [] }));
    }
    assert.throws(() => assertReadsWell({ text: "Fine.", tags: [{ name: "fastify", text: "/session" }] }));
  });
});

describe("the linked pages of constructors", () => {
  const links = ENTRIES.flatMap((file) => [
    ...textOf(file).matchAll(/@see https:\/\/github\.com\/fluidauth\/native-store\/blob\/main\/(\S+)/g),
  ]).map(([, page]) => page);

  it("are there", () => {
    assert.ok(links.length >= CLASSES.length);
    for (const page of links) assert.ok(fs.existsSync(path.join(ROOT, page)), page);
  });
});
