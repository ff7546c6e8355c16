"use strict";

const { createRequire } = require("node:module");
const path = require("node:path");
const { wrongUsage } = require("../failures.js");

/**
 * Finds the first of some packages that is installed and loads. This package has no dependencies, but an app with a
 * store has a driver for it.
 * @param {Record<string, (module: object) => T>} adapters By package name: adapts the module to a driver.
 * @param {{ user: string, load?: (name: string, requireFrom: NodeRequire) => object | null }} how `user`: the package
 * of the store, which may have its own driver. `load`: loads a package.
 * @returns {{ name: string, driver: T } | { broken: string[] }} Otherwise the reasons why installed packages do not
 * load.
 * @template T
 */
function findInApp(adapters, { user, load = loadPackage }) {
  const places = placesOf(user);
  const broken = new Set();
  for (const [name, adapt] of Object.entries(adapters)) {
    for (const requireFrom of places) {
      try {
        const found = load(name, requireFrom);
        if (found) return { name, driver: adapt(found) };
      } catch (error) {
        broken.add(`${name} is there, but does not load: ${error.message.split("\n")[0]}`);
      }
    }
  }
  return { broken: [...broken] };
}

/** Finds the app's driver for a server in the same way. Throws if there is none. */
function findDriverInApp(adapters, user) {
  const { driver, broken } = findInApp(adapters, { user });
  if (driver) return driver;
  const names = Object.keys(adapters);
  const why = [`--from ${user} takes the package ${names.join(" or ")}, and there is none`, ...broken];
  throw wrongUsage(`${why.join("; ")}; npm install ${names[0]} here`);
}

/** Returns the `require` of the app in this folder, of the package that it uses, and of this package. */
function placesOf(user) {
  const requireFromHere = createRequire(path.join(process.cwd(), "app.js"));
  try {
    return [requireFromHere, createRequire(requireFromHere.resolve(user)), require];
  } catch {
    return [requireFromHere, require];
  }
}

/** Loads a module, or returns `null` if it is not installed. */
function loadPackage(name, requireFrom) {
  try {
    requireFrom.resolve(name);
  } catch {
    return null;
  }
  return requireFrom(name);
}

module.exports = { findDriverInApp, findInApp, loadPackage };
