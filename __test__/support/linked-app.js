"use strict";

// Apps in separate folders, like those of users.

const fs = require("node:fs");
const path = require("node:path");
const { pathToFileURL } = require("node:url");

const ROOT = path.join(__dirname, "../..");
const NAME = "@fluidauth/native-store";

/**
 * Links this package and its development dependencies in the `node_modules` of a folder. `others` replaces targets by
 * name.
 */
function linkModules(folder, others = {}) {
  const own = path.join(ROOT, "node_modules");
  const targets = {};
  for (const name of fs.readdirSync(own)) {
    const inner = name.startsWith("@") ? fs.readdirSync(path.join(own, name)) : [""];
    for (const part of inner) targets[path.posix.join(name, part)] = path.join(own, name, part);
  }
  for (const [name, target] of Object.entries({ ...targets, [NAME]: ROOT, ...others })) {
    if (path.basename(name).startsWith(".")) continue;
    const link = path.join(folder, "node_modules", name);
    fs.mkdirSync(path.dirname(link), { recursive: true });
    fs.symlinkSync(target, link, "junction");
  }
}

/** Puts a stand-in for `@fluidauth/express`, which is in no registry, into the `node_modules` of a folder. */
function addFluidAuth(folder) {
  const target = path.join(folder, "node_modules/@fluidauth/express");
  fs.mkdirSync(target, { recursive: true });
  fs.writeFileSync(path.join(target, "package.json"), '{ "exports": "./index.mjs" }');
  const standIn = pathToFileURL(path.join(__dirname, "fluidauth-session.js"));
  const text = `import { FluidAuthService, FluidAuthSession } from "${standIn}";
export { FluidAuthService as AuthService, FluidAuthSession as Session };\n`;
  fs.writeFileSync(path.join(target, "index.mjs"), text);
}

const moduleOf = (name) => path.join(ROOT, "node_modules", name);

module.exports = { addFluidAuth, linkModules, moduleOf };
