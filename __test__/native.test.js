"use strict";

// The errors for an addon that does not load. Each case runs in a separate process on a copy of the package.

const assert = require("node:assert/strict");
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { after, before, beforeEach, describe, it } = require("node:test");
const { NAME, copyPackage } = require("./support/package-copy.js");

const SYSTEM = new RegExp(
  `${process.platform}-${process.arch}${process.platform === "linux" ? " with (glibc|musl)" : ""}`,
);

describe("a package that cannot be loaded", () => {
  let app;
  let target;
  let addon;
  let content;

  before(() => {
    app = fs.mkdtempSync(path.join(os.tmpdir(), "native-store-load-"));
    ({ target, addon } = copyPackage(app));
    content = fs.readFileSync(addon);
  });
  beforeEach(() => fs.writeFileSync(addon, content));
  after(() => fs.rmSync(app, { recursive: true, force: true }));

  const run = (args) => spawnSync(process.execPath, args, { cwd: app, encoding: "utf8" });

  function load({ name = NAME, flags = [], prelude = "" } = {}) {
    const script = `${prelude}
      try {
        require(${JSON.stringify(name)});
        console.log(JSON.stringify({ isLoaded: true }));
      } catch (error) {
        const { name, code, message, cause } = error;
        console.log(JSON.stringify({ name, code, message, hasCause: cause !== undefined }));
      }`;
    const { stdout, stderr } = run([...flags, "-e", script]);
    assert.notEqual(stdout, "", stderr);
    return JSON.parse(stdout);
  }

  function refuses(given, ...words) {
    for (const name of [NAME, `${NAME}/connect`]) {
      const { message, ...error } = load({ ...given, name });
      assert.deepEqual([error.name, error.code], ["SessionStoreError", "ERR_ADDON_LOAD"]);
      assert.match(message, /^@fluidauth\/native-store cannot be loaded: /);
      for (const word of words) assert.match(message, word);
      assert.doesNotMatch(message, /npm has a bug|wasi|wasm|\n|Require stack/);
    }
  }

  it("loads if nothing is wrong", () => {
    assert.deepEqual(load(), { isLoaded: true });
    assert.deepEqual(load({ name: `${NAME}/connect` }), { isLoaded: true });
  });

  it("names the system and the expected files if the addon is missing", () => {
    fs.rmSync(addon);
    refuses({}, SYSTEM, new RegExp(`looked for .*${path.basename(addon)}, ${NAME}-${process.platform}`));
    refuses({}, /install the package again on this machine/);
    assert.equal(load().hasCause, true);
  });

  it("reports the system's error for a truncated or invalid addon", () => {
    for (const text of ["", "\u007fELF", "version https://git-lfs.github.com/spec/v1\n"]) {
      fs.writeFileSync(addon, text);
      refuses({}, SYSTEM, /does not load: .*native-store\..*\.node|does not load: .*Win32/, /install/);
    }
  });

  it("names the file of a damaged platform package", () => {
    const { optionalPackage } = platformPackage();
    fs.rmSync(addon);
    const folder = path.join(app, "node_modules", optionalPackage);
    fs.mkdirSync(folder, { recursive: true });
    fs.writeFileSync(path.join(folder, "package.json"), '{ "version": "0.1.0", "main": "addon.node" }');
    fs.writeFileSync(path.join(folder, "addon.node"), "");
    refuses({}, SYSTEM, /does not load: .*(addon\.node|Win32)/);
    fs.rmSync(folder, { recursive: true });
  });

  /** Returns the name of this system's package in the generated loader. */
  function platformPackage() {
    fs.rmSync(addon);
    const [, optionalPackage] = load().message.match(/looked for .*, (\S+)\)/);
    fs.writeFileSync(addon, content);
    return { optionalPackage };
  }

  it("recognizes a foreign addon", () => {
    const binding = path.join(target, "binding.js");
    const generated = fs.readFileSync(binding);
    fs.writeFileSync(binding, "module.exports = { openMemory() {}, openFile: undefined };");
    refuses({}, /of another version or package, as it has no openFile/);
    fs.writeFileSync(binding, generated);
  });

  it("names the flags that forbid addons", () => {
    refuses({ flags: ["--no-addons"] }, /addons is disabled; start Node\.js without --no-addons/);
    const permission = process.allowedNodeEnvironmentFlags.has("--permission")
      ? "--permission"
      : "--experimental-permission";
    refuses({ flags: [permission, "--allow-fs-read=*"] }, /--allow-addons/);
  });

  it("names the flag that Deno needs", () => {
    const binding = path.join(target, "binding.js");
    const generated = fs.readFileSync(binding);
    const words = 'Requires ffi access to "/app/addon.node", run again with the --allow-ffi flag';
    fs.writeFileSync(
      binding,
      `throw new Error("npm has a bug", { cause: new Error(${JSON.stringify(words)}) });`,
    );
    refuses({}, /Requires ffi access .*; start Deno with --allow-ffi$/);
    fs.writeFileSync(binding, generated);
  });

  it("reports an old Node.js first", () => {
    const prelude = 'Object.defineProperty(process.versions, "node", { value: "18.20.8" });';
    fs.rmSync(addon);
    refuses({ prelude }, /it needs Node\.js 20 or later, and this is Node\.js 18\.20\.8$/);
    const file = path.join(app, "old.js");
    fs.writeFileSync(file, prelude);
    const { status, stderr } = run(["-r", file, path.join(target, "bin/native-store.js"), "--version"]);
    assert.deepEqual(
      [status, stderr],
      [3, "native-store: it needs Node.js 20 or later, and this is Node.js 18.20.8\n"],
    );
  });

  it("makes the command report it in one line, but its help works", () => {
    fs.rmSync(addon);
    const command = path.join(target, "bin/native-store.js");
    assert.equal(run([command, "--help"]).status, 0);
    const { status, stderr } = run([command, "stats", "--redis", "redis://localhost"]);
    assert.equal(status, 3);
    assert.match(
      stderr,
      /^native-store: .* cannot be loaded: there is no addon for .* \(ERR_ADDON_LOAD\)\n$/,
    );
  });
});
