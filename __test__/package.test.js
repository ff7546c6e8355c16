"use strict";

// The result of `npm pack` in an app with nothing but Node.
const assert = require("node:assert/strict");
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { after, before, describe, it } = require("node:test");
const { installPeers } = require("../bench/install.js");
const { parse } = require("../scripts/markdown.js");
const { choose } = require("../scripts/spdx.js");
const { copyPackage } = require("./support/package-copy.js");

const ROOT = path.join(__dirname, "..");
const OLDEST = path.join(__dirname, "compilers");
const NAME = "@fluidauth/native-store";
const PLATFORM = `${process.platform}-${process.arch}`;

/** npm's script: its place differs, and on Windows `npm` is not a program. */
const NPM = [
  process.env.npm_execpath,
  path.join(path.dirname(fs.realpathSync(process.execPath)), "node_modules/npm/bin/npm-cli.js"),
  path.join(path.dirname(fs.realpathSync(process.execPath)), "../lib/node_modules/npm/bin/npm-cli.js"),
].find((file) => file?.endsWith("npm-cli.js") && fs.existsSync(file));

function node(args, cwd, env) {
  const { status, stdout, stderr } = spawnSync(process.execPath, args, { cwd, env, encoding: "utf8" });
  assert.equal(status, 0, `node ${args.join(" ")}\n${stdout}\n${stderr}`);
  return stdout;
}

/** An environment with Node on the path, without Rust, and without variables of the current npm or test run. */
function bareEnvironment(home) {
  const bin = path.join(home, "bin");
  fs.mkdirSync(bin);
  fs.symlinkSync(process.execPath, path.join(bin, path.basename(process.execPath)));
  const foreign = /^(npm_|node_|path$|home$|cargo|rust)/i;
  const kept = Object.entries(process.env).filter(([name]) => !foreign.test(name));
  return { ...Object.fromEntries(kept), PATH: bin, HOME: home };
}

describe("the package", () => {
  let home;
  let app;
  let env;
  let packed;

  before(() => {
    home = fs.mkdtempSync(path.join(os.tmpdir(), "native-store-package-"));
    env = bareEnvironment(home);
    app = path.join(home, "app");
    fs.mkdirSync(app);
    fs.writeFileSync(path.join(app, "package.json"), '{ "private": true }');

    const output = node([NPM, "pack", "--json", "--pack-destination", home], ROOT, process.env);
    [packed] = JSON.parse(output.slice(output.search(/^\[/m)));
    const tarball = path.join(home, packed.filename);
    const quiet = ["--offline", "--no-audit", "--no-fund", "--ignore-scripts"];
    node([NPM, "install", ...quiet, tarball], app, env);
  });
  after(() => fs.rmSync(home, { recursive: true, force: true }));

  const write = (name, text) => fs.writeFileSync(path.join(app, name), text);
  const installed = (...names) => path.join(app, "node_modules", NAME, ...names);

  it("contains only the files that an app needs", (t) => {
    const files = packed.files.map((file) => file.path);
    const addons = files.filter((file) => file.endsWith(".node"));
    assert.equal(addons.length, 1);
    assert.match(addons[0], new RegExp(`^native-store\\.${PLATFORM}\\b`));
    const lib = fs
      .readdirSync(path.join(ROOT, "lib"), { recursive: true })
      .map((file) => path.join("lib", file));
    const docs = fs.readdirSync(path.join(ROOT, "docs"));
    const expected = [
      ...["package.json", "README.md", "LICENSE", "CHANGELOG.md", "THIRD_PARTY_NOTICES.txt"],
      ...[
        "index.js",
        "index.d.ts",
        "connect.js",
        "connect.d.ts",
        "binding.js",
        "bin/native-store.js",
        ...addons,
      ],
      ...lib.filter((file) => file.endsWith(".js")).map((file) => file.replaceAll("\\", "/")),
      ...docs.filter((file) => /\.(md|json)$/.test(file)).map((file) => `docs/${file}`),
      ...["get", "memory", "gaps", "http"].map((chart) => `docs/charts/${chart}.svg`),
    ];
    assert.deepEqual(files.sort(), expected.sort());
    const [size, unpackedSize] = [packed.size, packed.unpackedSize].map((bytes) => Math.ceil(bytes / 1024));
    t.diagnostic(`tarball: ${size} KiB packed, ${unpackedSize} KiB unpacked`);
  });

  it("contains the files that the pages in docs/ link to", async () => {
    const pages = packed.files.map((file) => file.path).filter((file) => /^docs\/.*\.md$/.test(file));
    assert.ok(pages.length > 10);
    const missing = [];
    for (const page of pages) {
      const { links } = await parse(fs.readFileSync(installed(page), "utf8"));
      const relative = links.filter((link) => !/^(?:#|[a-z][a-z+.-]*:)/i.test(link));
      for (const link of relative) {
        const target = path.posix.join(path.posix.dirname(page), link.split("#")[0]);
        if (!fs.existsSync(installed(target))) missing.push(`${page}: ${link}`);
      }
    }
    assert.deepEqual(missing, []);
  });

  it("installs without scripts and without other packages", () => {
    const manifest = JSON.parse(fs.readFileSync(installed("package.json"), "utf8"));
    for (const script of ["preinstall", "install", "postinstall", "prepare"]) {
      assert.equal(manifest.scripts[script], undefined);
    }
    assert.equal(manifest.dependencies, undefined);
    const modules = fs.readdirSync(path.join(app, "node_modules")).filter((name) => !name.startsWith("."));
    assert.deepEqual(modules, ["@fluidauth"]);
    assert.equal(spawnSync("cargo", ["--version"], { env }).error?.code, "ENOENT");
  });

  it("lists the licences of the code in its addon", () => {
    const notices = fs.readFileSync(installed("THIRD_PARTY_NOTICES.txt"), "utf8");
    for (const name of ["napi", "mimalloc", "serde_json", "Rust's standard library"]) {
      assert.match(notices, new RegExp(`^(.*, )?${name}`, "m"));
    }
  });

  it("is one module, whether required or imported", () => {
    write(
      "both.mjs",
      `import assert from "node:assert/strict";
      import { createRequire } from "node:module";
      import whole, { ConnectStore, MemoryStore, SessionStoreError, guardSession } from "${NAME}";
      const required = createRequire(import.meta.url)("${NAME}");
      assert.deepEqual(Object.keys(required).sort(), ["ConnectStore", "FileStore", "MemoryStore", "RedisStore", "SessionStoreError", "guardSession"]);
      assert.equal(ConnectStore, createRequire(import.meta.url)("${NAME}/connect").ConnectStore);
      assert.equal(whole, required);
      assert.equal(MemoryStore, required.MemoryStore);
      assert.equal(SessionStoreError, required.SessionStoreError);
      assert.equal(guardSession, required.guardSession);
      const store = new MemoryStore();
      await store.create({ sessionId: "an id", userId: 42, expires: new Date(Date.now() + 60_000) });
      assert.equal((await store.get("an id")).userId, 42);
      await assert.rejects(store.create(null), SessionStoreError);`,
    );
    node(["both.mjs"], app, env);
  });

  it("loads the adapter for other frameworks on first use", () => {
    const script = `const { MemoryStore, ...others } = Object.getOwnPropertyDescriptors(require("${NAME}"));
      const isLoaded = () => Object.keys(require.cache).some((file) => file.endsWith("connect-store.js"));
      console.log(isLoaded(), others.ConnectStore.get() === require("${NAME}/connect").ConnectStore, isLoaded());`;
    assert.equal(node(["-e", script], app, env), "false true true\n");
  });

  it("exports ConnectStore from its own module, with express-session and without", () => {
    write(
      "connect.mjs",
      `import assert from "node:assert/strict";
      import { createRequire } from "node:module";
      import { MemoryStore } from "${NAME}";
      import whole, { ConnectStore } from "${NAME}/connect";
      const require = createRequire(import.meta.url);
      assert.equal(whole, require("${NAME}/connect"));
      assert.equal(ConnectStore, require("${NAME}/connect").ConnectStore);
      const store = new ConnectStore(new MemoryStore());
      await store.set("a", { cookie: {}, user: "ada" });
      const kept = await store.get("a");
      assert.deepEqual(kept, { cookie: {}, user: "ada" });
      assert.throws(() => store.createSession({ sessionID: "a" }, kept), {
        name: "SessionStoreError",
        code: "ERR_INVALID_OPTION",
        message: /session\\(\\{ store, … \\}\\)/,
      });
      if (process.argv[2] === "with") {
        const session = require("express-session");
        session({ secret: "s", resave: false, saveUninitialized: false, store });
        assert.ok(store.createSession({ sessionID: "a", headers: {} }, kept) instanceof session.Session);
      }`,
    );
    node(["connect.mjs", "without"], app, env);
    const link = path.join(app, "node_modules/express-session");
    fs.symlinkSync(path.join(ROOT, "node_modules/express-session"), link, "junction");
    node(["connect.mjs", "with"], app, env);
    fs.unlinkSync(link);
  });

  it("keeps the contract of the stores", (t) => {
    write(
      "conformance.test.js",
      `const { FileStore, MemoryStore, SessionStoreError } = require("${NAME}");
      const { conformance } = require(${JSON.stringify(path.join(__dirname, "conformance.js"))});
      const { makePlace } = require(${JSON.stringify(path.join(__dirname, "support/file-places.js"))});
      const place = makePlace();
      conformance("installed MemoryStore", async (options, Store = MemoryStore) => new Store(options), {
        SessionStoreError,
      });
      conformance(
        "installed FileStore",
        async (options, Store = FileStore) => new Store({ path: place.next(), ...options }),
        { SessionStoreError },
        { ownStats: ["fileBytes", "log", "queuedBytes", "maxQueuedBytes"] },
      );
      const { ConnectStore } = require("${NAME}/connect");
      const { connectConformance } = require(${JSON.stringify(path.join(__dirname, "connect-conformance.js"))});
      connectConformance("an installed FileStore", (options) => new FileStore({ path: place.next(), ...options }), {
        ConnectStore,
        SessionStoreError,
      });`,
    );
    const output = node(["--test", "--test-reporter", "tap", "conformance.test.js"], app, env);
    const passed = Number(output.match(/^# pass (\d+)$/m)[1]);
    assert.ok(passed > 0);
    t.diagnostic(`conformance tests passed: ${passed}`);
  });

  it("contains its command", () => {
    write(
      "sessions.js",
      `const { FileStore } = require("${NAME}");
      const store = new FileStore({ path: "sessions" });
      store.create({ sessionId: "an id", userId: "ada", expires: new Date(Date.now() + 60_000) });`,
    );
    node(["sessions.js"], app, env);
    // The name of npm's link, for `npx`, depends on the system.
    assert.ok(fs.readdirSync(path.join(app, "node_modules/.bin")).includes("native-store"));
    const { bin } = JSON.parse(fs.readFileSync(installed("package.json"), "utf8"));
    const run = (...args) => node([installed(bin["native-store"]), ...args], app, env);
    assert.equal(JSON.parse(run("list", "--json")).userId, "ada");
    assert.match(run("revoke", "--user", "ada"), /1/);
    assert.equal(JSON.parse(run("stats", "--json")).live, 0);
  });

  it("has typings for both module systems", () => {
    const programs = ["fluidauth.d.ts", "app.mts", "app.cts"];
    for (const file of programs) fs.copyFileSync(path.join(__dirname, "types", file), path.join(app, file));
    const options = ["--noEmit", "--strict", "--skipLibCheck", "false", "--target", "es2022"];
    installPeers(OLDEST, { typescript: 'require("typescript")' }, () => {});
    for (const folder of [ROOT, OLDEST]) {
      const tsc = path.join(folder, "node_modules/typescript/bin/tsc");
      node([tsc, ...options, "--module", "node16", ...programs], app, env);
    }
  });
});

describe("the typings of ConnectStore", () => {
  for (const { framework, types, session, packages } of [
    {
      framework: "express-session",
      types: "express-session",
      session: "SessionData",
      packages: ["@types/express-session", "@types/node"],
    },
    {
      framework: "@fastify/session",
      types: "fastify",
      session: "Session",
      packages: ["@fastify/session", "@fastify/cookie", "fastify", "@types/node"],
    },
  ]) {
    it(`use the session type of ${framework} if that is installed`, () => {
      const app = fs.mkdtempSync(path.join(os.tmpdir(), "native-store-typed-"));
      copyPackage(app);
      for (const name of packages) {
        const link = path.join(app, "node_modules", name);
        fs.mkdirSync(path.dirname(link), { recursive: true });
        fs.symlinkSync(path.join(ROOT, "node_modules", name), link, "junction");
      }
      const source = `
        import "${framework}";
        import { ConnectStore, MemoryStore } from "${NAME}";
        declare module "${types}" { interface ${session} { user: number } }
        const store = new ConnectStore(new MemoryStore(), { userId: (session) => session.user });
        export const user: Promise<number | undefined> = store.get("an id").then((session) => session?.user);
        // @ts-expect-error: misspelt
        store.get("an id").then((session) => session?.usr);`;
      fs.writeFileSync(path.join(app, "app.mts"), source);
      const tsc = path.join(ROOT, "node_modules/typescript/bin/tsc");
      const options = ["--noEmit", "--strict", "--target", "es2022", "--module", "node16"];
      node([tsc, ...options, "app.mts"], app, process.env);
      fs.rmSync(app, { recursive: true, force: true });
    });
  }
});

describe("the licence check", () => {
  for (const [expression, chosen] of [
    ["MIT", ["MIT"]],
    ["Apache-2.0 OR MIT", ["MIT"]],
    ["Unlicense/MIT", ["MIT"]],
    ["GPL-3.0-only OR Zlib", ["Zlib"]],
    ["(MIT OR Apache-2.0) AND Unicode-3.0", ["MIT", "Unicode-3.0"]],
    ["Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", ["MIT"]],
    ["GPL-3.0-only", null],
    ["MIT AND GPL-3.0-only", null],
    ["(MIT AND GPL-3.0-only) OR LGPL-2.1", null],
    ["Apache-2.0 WITH LLVM-exception", null],
    ["MITX", null],
    ["", null],
    [undefined, null],
  ]) {
    it(`${chosen ? `takes ${chosen.join(" and ")} of` : "refuses"} ${expression || "no licence"}`, () => {
      assert.deepEqual(choose(expression), chosen);
    });
  }

  it("refuses an invalid expression", () => {
    assert.throws(() => choose("MIT MIT"), SyntaxError);
    assert.throws(() => choose("(MIT"), SyntaxError);
  });
});
