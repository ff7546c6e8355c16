"use strict";

const fs = require("node:fs");
const path = require("node:path");

const ROOT = path.join(__dirname, "..");
const RUST_SOURCES = ["src", "Cargo.toml", "Cargo.lock", "build.rs"];

/** When a file, or anything in a directory, last changed; `-Infinity` where there is none. */
function modified(file) {
  const stat = fs.statSync(file, { throwIfNoEntry: false });
  if (!stat) return Number.NEGATIVE_INFINITY;
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...fs.readdirSync(file).map((name) => modified(path.join(file, name))));
}

/** When anything that the addon is built from last changed. */
const sourcesModified = () => Math.max(...RUST_SOURCES.map((source) => modified(path.join(ROOT, source))));

module.exports = { ROOT, modified, sourcesModified };
