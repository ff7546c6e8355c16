"use strict";

// Checks the dependencies between the files of `src`: no cycle of files, and no dependency against the direction that
// the documentation of `src/lib.rs` states. Ignores test-only code.
const fs = require("node:fs");
const path = require("node:path");

const ROOT = path.join(__dirname, "..");

const USE = /\b(pub(?:\([^)]*\))?\s+)?use\s+([^;]+);/g;
const INLINE_PATH = /\b(?:crate|super|self)(?:::\w+)+/g;
const TEST_ONLY = /#\[cfg\((?:test|any\(test, fuzzing\)|all\(test[^\]]*)\)\]\s*/g;
const DEFINITION = "(?:fn|struct|enum|union|trait|type|const|static|mod|macro_rules!)";

/** Returns the text without comments and visibility paths, and with emptied strings. */
function codeOnly(text) {
  const token =
    /\/\/[^\n]*|\/\*[\s\S]*?\*\/|r(#*)"[\s\S]*?"\1|"(?:\\[\s\S]|[^"\\])*"|'(?:\\(?:u\{[^}]*\}|x..|.)|[^'\\])'/g;
  const code = text.replace(token, (match) => (match.startsWith("/") ? " " : '""'));
  return code.replace(/\bpub\(in [^)]*\)/g, "pub");
}

/** Returns the end of the item that starts at an index: after its semicolon, or after its block. */
function endOfItem(code, start) {
  let depth = 0;
  for (let at = start; at < code.length; at++) {
    if (code[at] === "{") depth++;
    if (code[at] === "}" && --depth === 0) return at + 1;
    if (code[at] === ";" && depth === 0) return at + 1;
  }
  return code.length;
}

/** Splits code into the code that is always compiled, and the names of the test-only modules. */
function withoutTests(code) {
  const testModules = new Set();
  let kept = "";
  let from = 0;
  for (const match of code.matchAll(TEST_ONLY)) {
    if (match.index < from) continue;
    const end = endOfItem(code, match.index + match[0].length);
    const item = code.slice(match.index, end);
    const module = /\bmod\s+(\w+)\s*;/.exec(item);
    if (module) testModules.add(module[1]);
    kept += code.slice(from, match.index);
    from = end;
  }
  return { code: kept + code.slice(from), testModules };
}

/**
 * Returns the paths of a `use`, each with the name that it brings into scope: `a::{b, c as d}` is `a::b` and `a::c`.
 */
function expand(text) {
  const tree = text.trim();
  const brace = tree.indexOf("{");
  if (brace < 0) {
    const [found, alias] = tree.split(/\s+as\s+/);
    const segments = found.split("::").map((segment) => segment.trim());
    if (segments.at(-1) === "self") segments.pop();
    return [{ segments, name: alias?.trim() ?? segments.at(-1) }];
  }
  const prefix = tree.slice(0, brace);
  const parts = [];
  let depth = 0;
  let part = "";
  for (const char of tree.slice(brace + 1, tree.lastIndexOf("}"))) {
    if (char === "{") depth++;
    if (char === "}") depth--;
    if (char === "," && depth === 0) {
      parts.push(part);
      part = "";
    } else part += char;
  }
  parts.push(part);
  return parts.filter((each) => each.trim()).flatMap((each) => expand(prefix + each.trim()));
}

function rustFiles(folder) {
  return fs.readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const full = path.join(folder, entry.name);
    if (entry.isDirectory()) return rustFiles(full);
    return entry.name.endsWith(".rs") ? [full] : [];
  });
}

/** Returns the path of the module in a file of `src`, such as `["store", "memory"]`. */
function modulePath(src, file) {
  const segments = path.relative(src, file).replace(/\.rs$/, "").split(path.sep);
  if (["mod", "lib"].includes(segments.at(-1))) segments.pop();
  return segments;
}

/** Reads the modules under `src`. Returns the imports and re-exports of each, by path. */
function readModules(src) {
  const modules = new Map();
  for (const file of rustFiles(src)) {
    const { code, testModules } = withoutTests(codeOnly(fs.readFileSync(file, "utf8")));
    const uses = [...code.matchAll(USE)].flatMap(([, isPublic, tree]) =>
      expand(tree).map((one) => ({ ...one, isPublic: Boolean(isPublic) })),
    );
    const inline = [...code.replace(USE, " ").matchAll(INLINE_PATH)].map(([text]) => ({
      segments: text.split("::"),
      isPublic: false,
    }));
    const own = modulePath(src, file);
    modules.set(own.join("::"), { own, file, code, testModules, uses, inline });
  }
  for (const [name, module] of modules) {
    const isTest = module.own.some((segment, at) =>
      modules.get(module.own.slice(0, at).join("::"))?.testModules.has(segment),
    );
    if (isTest) modules.delete(name);
  }
  return modules;
}

/** Returns the module of an absolute path. Follows modules and re-exports. */
function follow(modules, start, segments, depth = 0) {
  let at = start;
  for (const [index, segment] of segments.entries()) {
    const child = [...at, segment];
    if (modules.has(child.join("::"))) {
      at = child;
      continue;
    }
    const module = modules.get(at.join("::"));
    const exported = module?.uses.filter((use) => use.isPublic) ?? [];
    const named = exported.find((use) => use.name === segment);
    const globs = exported.filter((use) => use.name === "*");
    for (const use of named ? [named] : globs) {
      const target = depth < 8 && resolve(modules, at, use.segments, depth + 1);
      if (!target) continue;
      const defines = new RegExp(`\\b${DEFINITION}\\s+${segment}\\b`);
      if (named || defines.test(modules.get(target.join("::")).code)) {
        return named ? follow(modules, target, segments.slice(index + 1), depth + 1) : target;
      }
    }
    break;
  }
  return modules.has(at.join("::")) ? at : undefined;
}

/** Returns the module of a path in a module, or `undefined` for a path into another crate. */
function resolve(modules, from, segments, depth = 0) {
  const [first, ...rest] = segments;
  if (first === "crate") return follow(modules, [], rest, depth);
  if (first === "self") return follow(modules, from, rest, depth);
  if (first === "super") {
    const ups = segments.findIndex((segment) => segment !== "super");
    const count = ups < 0 ? segments.length : ups;
    return follow(modules, from.slice(0, from.length - count), segments.slice(count), depth);
  }
  return modules.has([...from, first].join("::")) ? follow(modules, from, segments, depth) : undefined;
}

/** Returns which module imports from which. A module that re-exports its children does not depend on them. */
function dependencies(modules) {
  const edges = new Map();
  for (const [name, module] of modules) {
    const targets = new Set();
    for (const use of [...module.uses, ...module.inline]) {
      const target = resolve(modules, module.own, use.segments)?.join("::");
      const isOwnChild = target?.startsWith(name === "" ? "" : `${name}::`);
      if (target !== undefined && target !== name && !(use.isPublic && isOwnChild)) targets.add(target);
    }
    edges.set(name, targets);
  }
  return edges;
}

/** Returns a shortest cycle through a module. */
function circleThrough(edges, start) {
  const cameFrom = new Map();
  const queue = [start];
  for (const at of queue) {
    for (const next of edges.get(at) ?? []) {
      if (next === start) {
        const circle = [start];
        for (let step = at; step !== start; step = cameFrom.get(step)) circle.splice(1, 0, step);
        return [...circle, start];
      }
      if (!cameFrom.has(next)) {
        cameFrom.set(next, at);
        queue.push(next);
      }
    }
  }
  return undefined;
}

/** Returns a cycle for each module on a cycle, except for modules in an earlier one. */
function circles(edges) {
  const named = new Set();
  const found = [];
  for (const name of [...edges.keys()].sort()) {
    const circle = named.has(name) ? undefined : circleThrough(edges, name);
    if (!circle) continue;
    for (const step of circle) named.add(step);
    found.push(circle);
  }
  return found;
}

/**
 * Returns the lines of the ```text block in the documentation of lib.rs: the modules of each layer, the highest first.
 */
function statedLayers(src) {
  const text = fs.readFileSync(path.join(src, "lib.rs"), "utf8");
  const block = /^\/\/! ```text\n([\s\S]*?)^\/\/! ```$/m.exec(text);
  if (!block) throw new Error("src/lib.rs states no layers in a ```text block");
  const lines = block[1].split("\n").map((line) => line.replace(/^\/\/! ?/, "").trim());
  return lines.filter(Boolean).map((line) => line.split(/,\s*/));
}

/** Returns the problems of the tree under `root`, as lines of text. */
function check(root) {
  const src = path.join(root, "src");
  const modules = readModules(src);
  const edges = dependencies(modules);
  const fileOf = (name) => path.relative(root, modules.get(name).file).split(path.sep).join("/");
  const problems = [];

  for (const circle of circles(edges)) {
    problems.push(`a circle of files: ${circle.map(fileOf).join(" -> ")}`);
  }

  const units = statedLayers(src)
    .flatMap((names, level) => names.map((unit) => ({ unit, level })))
    .sort((one, other) => other.unit.length - one.unit.length);
  // The longest matching name is the most specific.
  const layerOf = (name) => units.find(({ unit }) => name === unit || name.startsWith(`${unit}::`));
  for (const [name, targets] of edges) {
    if (name === "") continue;
    const from = layerOf(name);
    if (!from) {
      problems.push(`${fileOf(name)}: src/lib.rs states no layer for it`);
      continue;
    }
    for (const target of targets) {
      const to = layerOf(target);
      const isAllowed = target !== "" && (!to || to.unit === from.unit || to.level > from.level);
      if (!isAllowed) {
        problems.push(`${fileOf(name)} depends on ${fileOf(target)}, against the direction in src/lib.rs`);
      }
    }
  }
  return problems;
}

function main() {
  const problems = check(ROOT);
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) {
    console.error(
      `\n${problems.length} problems. Move what two files share to a third one that both import.`,
    );
    process.exitCode = 1;
  } else {
    console.log("No circle of files, and all dependencies point in the direction that src/lib.rs states");
  }
}

if (require.main === module) main();

module.exports = { check };
