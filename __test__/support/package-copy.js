"use strict";

const fs = require("node:fs");
const path = require("node:path");

const ROOT = path.join(__dirname, "../..");
const NAME = "@fluidauth/native-store";

/** Copies the files of the package into the `node_modules` of a folder, like npm does. */
function copyPackage(folder) {
  const { files } = require("../../package.json");
  const target = path.join(folder, "node_modules", NAME);
  fs.rmSync(target, { recursive: true, force: true });
  fs.mkdirSync(target, { recursive: true });
  const addons = fs.readdirSync(ROOT).filter((file) => file.endsWith(".node"));
  const names = ["package.json", ...files, ...addons].filter((name) => fs.existsSync(path.join(ROOT, name)));
  for (const name of names) fs.cpSync(path.join(ROOT, name), path.join(target, name), { recursive: true });
  return { target, addon: path.join(target, addons[0]) };
}

module.exports = { NAME, copyPackage };
