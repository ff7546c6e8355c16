"use strict";

// An app on express-session and ConnectStore, built by bundlers or with a linked package. It runs in its own folder,
// where this package cannot resolve express-session.

const assert = require("node:assert/strict");
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { after, before, describe, it } = require("node:test");
const { installPeers } = require("../bench/install.js");
const { BUNDLES } = require("./bundlers/build.js");
const { copyPackage } = require("./support/package-copy.js");

const OWN = path.join(__dirname, "bundlers");
const EXPECTED = ["200 in", "200 ada, true", "200 ada, true", "200 in"];

describe("an app on ConnectStore", () => {
  let home;
  let made = 0;

  before(() => {
    const trials = { esbuild: 'require("esbuild")', webpack: 'require("webpack")' };
    assert.deepEqual(
      installPeers(OWN, trials, () => console.log("installing bundlers")),
      {},
    );
    home = fs.mkdtempSync(path.join(os.tmpdir(), "native-store-bundles-"));
  });
  after(() => fs.rmSync(home, { recursive: true, force: true }));

  function newFolder() {
    const folder = path.join(home, `${++made}`);
    fs.mkdirSync(folder);
    return folder;
  }

  /** Runs the app in a folder without `node_modules`. Returns what it printed. */
  function run(file) {
    const sessions = path.join(newFolder(), "sessions");
    const { stdout, stderr } = spawnSync(process.execPath, [file, sessions], {
      cwd: newFolder(),
      encoding: "utf8",
    });
    assert.notEqual(stdout, "", stderr);
    return JSON.parse(stdout);
  }

  for (const [name, { build, isExternal }] of Object.entries(BUNDLES)) {
    it(`runs as a bundle: ${name}`, async () => {
      const [folder, out] = [newFolder(), newFolder()];
      fs.copyFileSync(path.join(OWN, "app.js"), path.join(folder, "app.js"));
      copyPackage(folder);
      await build(folder, out);
      fs.rmSync(folder, { recursive: true });
      if (isExternal) copyPackage(out);
      assert.deepEqual(run(path.join(out, "app.js")), EXPECTED);
    });
  }

  it("runs with a linked package", () => {
    const [folder, elsewhere] = [newFolder(), newFolder()];
    const { target } = copyPackage(elsewhere);
    const modules = path.join(folder, "node_modules");
    fs.mkdirSync(path.join(modules, "@fluidauth"), { recursive: true });
    fs.symlinkSync(target, path.join(modules, "@fluidauth/native-store"), "junction");
    for (const name of ["express", "express-session"]) {
      fs.symlinkSync(path.join(OWN, "node_modules", name), path.join(modules, name), "junction");
    }
    fs.copyFileSync(path.join(OWN, "app.js"), path.join(folder, "app.js"));
    assert.deepEqual(run(path.join(folder, "app.js")), EXPECTED);
  });

  it("names the expected place of its addon if the bundle was moved without it", async () => {
    const [folder, out] = [newFolder(), newFolder()];
    fs.copyFileSync(path.join(OWN, "app.js"), path.join(folder, "app.js"));
    copyPackage(folder);
    await BUNDLES["esbuild, with the addon copied"].build(folder, out);
    for (const file of fs.readdirSync(out)) if (file.endsWith(".node")) fs.rmSync(path.join(out, file));
    const { status, stderr } = spawnSync(process.execPath, [path.join(out, "app.js")], { encoding: "utf8" });
    assert.equal(status, 1);
    assert.match(stderr, /ERR_ADDON_LOAD/);
    assert.match(stderr, /looked for \.\/native-store\..*\.node.*nor does a bundle without the \.node file/);
  });

  it("starts with code that Node.js 14 can parse, to report that it is too old", async () => {
    const { transform } = require("./bundlers/node_modules/esbuild");
    const files = ["index.js", "connect.js", "bin/native-store.js"];
    const loaded = ["native.js", "errors.js", "node-version.js"].map((name) => `lib/${name}`);
    for (const file of [...files, ...loaded]) {
      const code = fs.readFileSync(path.join(__dirname, "..", file), "utf8");
      const [old, own] = await Promise.all(["es2020", "esnext"].map((target) => transform(code, { target })));
      // Syntax newer than Node.js 14 would have been rewritten.
      assert.equal(old.code, own.code, file);
    }
    const { code } = await transform("a ??= b", { target: "es2020" });
    assert.doesNotMatch(code, /\?\?=/);
  });
});
