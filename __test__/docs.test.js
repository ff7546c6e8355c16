"use strict";

// The pages for users agree with each other, with the typings and with the code.
const assert = require("node:assert/strict");
const { EventEmitter } = require("node:events");
const fs = require("node:fs");
const path = require("node:path");
const { before, describe, it } = require("node:test");
const { FileStore, MemoryStore, RedisStore } = require("..");
const { ConnectStore } = require("../connect.js");
const { commands } = require("../lib/cli/commands.js");
const { commonOptions } = require("../lib/cli/common-options.js");
const { ROOT, pages, parse, readPage } = require("../scripts/markdown");

const GITHUB = "https://github.com/fluidauth/native-store";

const read = (...names) => fs.readFileSync(path.join(ROOT, ...names), "utf8");

const all = (text, pattern) => [...text.matchAll(pattern)].map(([, found]) => found);
const sorted = (values) => [...new Set(values)].sort();

describe("the documentation", () => {
  const parsed = new Map();
  before(async () => {
    for (const page of pages()) parsed.set(page, await parse(readPage(page)));
  });

  /** Returns why a link of a page is broken, or `undefined`. */
  function faultOf(page, link) {
    const [, own] =
      /^https:\/\/github\.com\/fluidauth\/native-store\/(?:blob|tree)\/HEAD\/(.+)$/.exec(link) ?? [];
    if (own !== undefined) return faultOf("README.md", own);
    if (/^[a-z][a-z+.-]*:/i.test(link)) return undefined;
    const [file, anchor] = link.split("#").map(decodeURIComponent);
    const target = file === "" ? page : path.posix.join(path.posix.dirname(page), file);
    if (!fs.existsSync(path.join(ROOT, target))) {
      return `there is no ${target}`;
    }
    if (anchor === undefined) return undefined;
    return parsed.get(target)?.anchors.has(anchor) ? undefined : `${target} has no #${anchor}`;
  }

  it("has no broken link", () => {
    const faults = [...parsed].flatMap(([page, { links }]) =>
      links
        .map((link) => [link, faultOf(page, link)])
        .map(([link, why]) => why && `${page}: ${link}: ${why}`),
    );
    assert.deepEqual(faults.filter(Boolean), []);
  });

  it("would detect broken links", () => {
    for (const link of [
      "no-such-page.md",
      "cli.md#no-such-heading",
      "#no-such-heading",
      "../no-such-file.js",
      `${GITHUB}/blob/HEAD/no-such-file.js`,
    ]) {
      assert.notEqual(faultOf("docs/errors.md", link), undefined, link);
    }
    for (const link of [
      "https://example.com/x",
      "#outcome",
      "../lib/errors.js",
      "../README.md",
      "charts/get.svg",
      `${GITHUB}/tree/HEAD/examples/login`,
    ]) {
      assert.equal(faultOf("docs/errors.md", link), undefined, link);
    }
  });

  it("lists every page in its index", () => {
    const linked = new Set(parsed.get("docs/README.md").links);
    const unlisted = [...parsed.keys()]
      .filter((page) => page.startsWith("docs/") && page !== "docs/README.md")
      .filter((page) => !linked.has(path.posix.basename(page)));
    assert.deepEqual(unlisted, []);
  });

  it("has a heading for exactly the error codes", () => {
    const typings = read("index.d.ts");
    const [, union] = /export type SessionStoreErrorCode =([^;]+);/.exec(typings);
    const codes = sorted(all(union, /"(ERR_\w+)"/g));
    const headings = parsed.get("docs/errors.md").headings.map(({ text }) => text);
    assert.deepEqual(sorted(headings.filter((text) => text.startsWith("ERR_"))), codes);

    const lib = fs
      .readdirSync(path.join(ROOT, "lib"), { recursive: true })
      .filter((file) => file.endsWith(".js"))
      .map((file) => read("lib", file))
      .join("\n");
    const thrown = [
      ...all(lib, /SessionStoreError\(\s*"(ERR_\w+)"/g),
      ...all(read("src", "error.rs"), /=> "(ERR_\w+)"/g),
    ];
    assert.deepEqual(sorted(thrown), codes);
  });

  it("lists exactly the reasons of ERR_STORE_UNAVAILABLE", () => {
    const [, union] = /export type UnavailableReason =([^;]+);/.exec(read("index.d.ts"));
    const [, section] = /\n## `reason`\n(.*?)\n## /s.exec(readPage("docs/errors.md"));
    assert.deepEqual(sorted(all(section, /^\| `"([^"]+)"`/gm)), sorted(all(union, /"([^"]+)"/g)));
  });

  it("has a heading for each command, and its options", () => {
    const page = readPage("docs/cli.md");
    const headings = parsed.get("docs/cli.md").headings.map(({ text }) => text);
    const isNamed = (option) => new RegExp(`--${option}(?![\\w-])`).test(page);
    for (const [name, { options }] of Object.entries(commands)) {
      assert.ok(headings.includes(name), name);
      for (const option of Object.keys(options)) assert.ok(isNamed(option), `--${option} of ${name}`);
    }
    for (const option of Object.keys(commonOptions)) assert.ok(isNamed(option), `--${option}`);
  });

  it("has a heading for each method", () => {
    const headings = parsed.get("docs/api.md").headings.map(({ text }) => text);
    // Methods that only name the right one: the frameworks call three of them on a store without ConnectStore.
    const isMethod = (name) => !["on", "set", "destroy", "destroyByUser"].includes(name);
    const stores = [FileStore, RedisStore, MemoryStore].flatMap(methodsOf).filter(isMethod);
    const adapter = methodsOf(ConnectStore).map((name) => `ConnectStore.${name}`);
    // For express-session only, and a method that only names the right one.
    const internal = ["generate", "createSession", "regenerate", "load", "deleteByUser"].map(
      (name) => `ConnectStore.${name}`,
    );
    const names = sorted([...stores, ...adapter]).filter((name) => !internal.includes(name));
    assert.ok(names.length > 25);
    assert.deepEqual(
      names.filter((name) => !headings.includes(name)),
      [],
    );
  });

  for (const [page, open] of [
    ["docs/memory-store.md", (options) => new MemoryStore(options)],
    ["docs/file-store.md", (options) => new FileStore(options)],
    ["docs/redis-store.md", (options) => new RedisStore(options)],
    ["docs/connect-store.md", (options) => new ConnectStore(new MemoryStore(), options)],
  ]) {
    it(`has a heading for each option in ${page}`, () => {
      const headings = parsed.get(page).headings.flatMap(({ text }) => text.split(" and "));
      const options = optionsOf(open);
      assert.ok(options.length > 4);
      assert.deepEqual(
        options.filter((option) => !headings.includes(option)),
        [],
      );
    });
  }
});

/** Returns the names of the methods of a class, including inherited ones. */
function methodsOf(Store) {
  const names = [];
  for (let at = Store.prototype; ![Object.prototype, EventEmitter.prototype].includes(at); ) {
    names.push(...Object.getOwnPropertyNames(at));
    at = Object.getPrototypeOf(at);
  }
  return names.filter((name) => name !== "constructor");
}

/** Returns the options of a constructor, from its refusal of an unknown one. */
function optionsOf(open) {
  try {
    open({ "?": 1 });
  } catch ({ message }) {
    return /the options are (.+)$/.exec(message)[1].split(", ");
  }
  assert.fail("an unknown option was taken");
}
