"use strict";

const { createRequire } = require("node:module");
const path = require("node:path");
const { wrongUsage } = require("../failures.js");

/**
 * The first of some packages that is there and loads. This package has no dependencies, but an app that has a store has a
 * driver for it.
 * @param {Record<string, (module: object) => T>} adapters By the names of the packages: what makes of each what is needed.
 * @param {{ user: string, load?: (name: string, requireFrom: NodeRequire) => object | null }} how The package whose store
 *   it is, which may have a driver to itself; how a package loads.
 * @returns {{ name: string, driver: T } | { broken: string[] }} Else why those that are there do not load.
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

/** The driver that the app has for a server: of the first of these packages, as above. */
function findDriverInApp(adapters, user) {
  const { driver, broken } = findInApp(adapters, { user });
  if (driver) return driver;
  const names = Object.keys(adapters);
  const why = [`--from ${user} takes the package ${names.join(" or ")}, and there is none`, ...broken];
  throw wrongUsage(`${why.join("; ")}; npm install ${names[0]} here`);
}

/** What requires as the app in this folder does, as the package that it uses, and as this package. */
function placesOf(user) {
  const requireFromHere = createRequire(path.join(process.cwd(), "app.js"));
  try {
    return [requireFromHere, createRequire(requireFromHere.resolve(user)), require];
  } catch {
    return [requireFromHere, require];
  }
}

/** The module, or `null` where there is none. */
function loadPackage(name, requireFrom) {
  try {
    requireFrom.resolve(name);
  } catch {
    return null;
  }
  return requireFrom(name);
}

module.exports = { findDriverInApp, findInApp, loadPackage };
