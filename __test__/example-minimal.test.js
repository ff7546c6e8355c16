"use strict";

// The single-file examples, copied as a reader copies them.

const assert = require("node:assert/strict");
const { spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { after, afterEach, before, describe, it } = require("node:test");
const { FileStore } = require("..");
const { kill, killAll, startFile } = require("./support/example-server.js");
const { makePlace } = require("./support/file-places.js");
const { addFluidAuth, linkModules, moduleOf } = require("./support/linked-app.js");
const { copyPackage } = require("./support/package-copy.js");

const EXAMPLES = path.join(__dirname, "../examples");
const SECRET = "the secret of this test, of 32 bytes or more";
const ADA = { name: "ada", password: "analytical-engine" };
const TYPESCRIPT_5 = moduleOf("@tsd/typescript/typescript/lib/tsc.js");
const TYPESCRIPT_7 = moduleOf("typescript/bin/tsc");
const EXPRESS_4 = { express: moduleOf("express"), "@types/express": moduleOf("@types/express") };
const EXPRESS_5 = { express: moduleOf("express5"), "@types/express": moduleOf("@types/express5") };

const { next: newFolder } = makePlace();

/** A copy of an example's folder, with its packages. */
function copyOut(name, links) {
  const folder = path.join(newFolder(), name);
  fs.cpSync(path.join(EXAMPLES, name), folder, { recursive: true });
  linkModules(folder, links);
  // A link would resolve to the types in the package's own node_modules, which belong to another Express version.
  copyPackage(folder);
  addFluidAuth(folder);
  return folder;
}

const compiledBy = new Map();

/** A copy of the example in TypeScript, compiled. */
function compiled(compiler, links) {
  if (!compiledBy.has(compiler)) {
    const folder = copyOut("typescript", links);
    compile(folder, compiler);
    compiledBy.set(compiler, folder);
  }
  return compiledBy.get(compiler);
}

function compile(folder, compiler) {
  // As if the packages were in the folder, so that all of them use the same Express types.
  const args = [compiler, "--preserveSymlinks"];
  const { status, stdout } = spawnSync(process.execPath, args, { cwd: folder, encoding: "utf8" });
  assert.equal(status, 0, stdout);
}

/** A minimal browser for these apps. */
class Visitor {
  cookie = "";

  constructor(url) {
    this.url = url;
  }

  async request(method, route, body) {
    const headers = { cookie: this.cookie, ...(body && { "content-type": "application/json" }) };
    const response = await fetch(this.url + route, { method, headers, body: body && JSON.stringify(body) });
    for (const set of response.headers.getSetCookie()) this.cookie = set.slice(0, set.indexOf(";"));
    const text = await response.text();
    return { status: response.status, body: /^\{/.test(text) ? JSON.parse(text) : text };
  }

  post(route, body) {
    return this.request("POST", route, body);
  }

  async user() {
    return (await this.request("GET", "/")).body.userId;
  }

  async login() {
    assert.deepEqual(await this.post("/login", ADA), { status: 200, body: { userId: 1 } });
    return this;
  }

  /** The same browser after a restart of the app. */
  at(url) {
    return Object.assign(new Visitor(url), { cookie: this.cookie });
  }
}

const APPS = {
  "express.mjs on Express 4": { file: "express.mjs", folder: () => copyOut("minimal", EXPRESS_4) },
  "express.mjs on Express 5": { file: "express.mjs", folder: () => copyOut("minimal", EXPRESS_5) },
  "fastify.mjs": { file: "fastify.mjs", folder: () => copyOut("minimal") },
  "fluidauth.mjs": { file: "fluidauth.mjs", folder: () => copyOut("minimal") },
  "express.ts on Express 4, by TypeScript 5": {
    file: "dist/express.js",
    folder: () => compiled(TYPESCRIPT_5, EXPRESS_4),
  },
  "express.ts on Express 5, by TypeScript 7": {
    file: "dist/express.js",
    folder: () => compiled(TYPESCRIPT_7, EXPRESS_5),
  },
  "fastify.ts, by TypeScript 7": { file: "dist/fastify.js", folder: () => compiled(TYPESCRIPT_7, EXPRESS_5) },
};

for (const [title, { file, folder }] of Object.entries(APPS)) {
  describe(title, () => {
    let app;
    before(() => {
      app = path.join(folder(), file);
    });
    afterEach(killAll);
    after(killAll);

    const startIn = (sessions, env) =>
      startFile(app, { SESSION_SECRET: SECRET, NATIVE_STORE_PATH: sessions, ...env });

    it("keeps logins across restarts, and ends them for good", async () => {
      const sessions = newFolder();
      const first = await startIn(sessions);
      const laptop = await new Visitor(first.url).login();
      const phone = await new Visitor(first.url).login();
      assert.equal(await laptop.user(), 1);
      assert.equal(await kill(first.child, "SIGTERM"), 0);

      const second = await startIn(sessions);
      const [again, stolen] = [laptop.at(second.url), phone.at(second.url)];
      assert.deepEqual([await again.user(), await stolen.user()], [1, 1]);
      assert.equal((await phone.at(second.url).post("/logout")).status, 204);
      assert.equal(await stolen.user(), null);
      await new Visitor(second.url).login();
      assert.deepEqual(await laptop.at(second.url).post("/logout-everywhere"), {
        status: 200,
        body: { ended: 2 },
      });
      assert.equal(await laptop.at(second.url).user(), null);
      await kill(second.child);

      const third = await startIn(sessions);
      assert.equal(await laptop.at(third.url).user(), null);
    });

    it("creates no session for a visitor or a wrong password, and a new one at each login", async (t) => {
      const sessions = newFolder();
      const { url } = await startIn(sessions);
      const visitor = new Visitor(url);
      assert.equal(await visitor.user(), null);
      for (const body of [undefined, {}, { ...ADA, password: "wrong" }]) {
        assert.equal((await visitor.post("/login", body)).status, 401);
      }
      assert.equal((await visitor.post("/logout-everywhere")).status, 401);
      assert.equal((await visitor.request("GET", "/healthz")).status, 200);
      assert.equal(visitor.cookie, "");
      const store = new FileStore({ path: sessions });
      t.after(() => store.close());
      assert.equal(await store.size(), 0);
      await visitor.login();
      const before = visitor.at(url);
      await visitor.login();
      assert.deepEqual([await visitor.user(), await before.user(), await store.size()], [1, null, 1]);
    });

    it("keeps its sessions outside of its folder, and asks for a secret", async () => {
      const home = newFolder();
      const env = { NATIVE_STORE_PATH: undefined, HOME: home, USERPROFILE: home };
      await startIn(undefined, env);
      assert.ok(fs.existsSync(path.join(home, ".local/state/minimal/sessions/data.mdb")));
      const { status, stderr } = spawnSync(process.execPath, [app], {
        env: { ...process.env, ...env, SESSION_SECRET: "" },
        encoding: "utf8",
      });
      assert.equal(status, 1);
      assert.match(stderr, /SESSION_SECRET is required/);
    });
  });
}

describe("the folders of the examples", () => {
  for (const name of ["minimal", "typescript"]) {
    it(`${name} lists all its imports in its package.json`, () => {
      const folder = path.join(EXAMPLES, name);
      const { dependencies } = JSON.parse(fs.readFileSync(path.join(folder, "package.json"), "utf8"));
      const sources = fs.readdirSync(folder).filter((file) => /\.(mjs|ts)$/.test(file));
      const imported = sources.flatMap((file) => {
        const text = fs.readFileSync(path.join(folder, file), "utf8");
        return [...text.matchAll(/from "((?:@[^/"]+\/)?[^/":]+)/g)].map(([, found]) => found);
      });
      // No registry has it.
      const listed = new Set(imported.filter((found) => found !== "@fluidauth/express" && found !== "node"));
      assert.deepEqual([...listed].sort(), Object.keys(dependencies).sort());
    });
  }
});
