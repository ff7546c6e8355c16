"use strict";

const fs = require("node:fs");
const path = require("node:path");

const ROOT = path.join(__dirname, "..");
const RUST_SOURCES = ["src", "Cargo.toml", "Cargo.lock", "build.rs"];

/** Returns when a file, or any file in a directory, last changed, or `-Infinity` if there is none. */
function modified(file) {
  const stat = fs.statSync(file, { throwIfNoEntry: false });
  if (!stat) return Number.NEGATIVE_INFINITY;
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...fs.readdirSync(file).map((name) => modified(path.join(file, name))));
}

/** Returns when a source of the addon last changed. */
const sourcesModified = () => Math.max(...RUST_SOURCES.map((source) => modified(path.join(ROOT, source))));

module.exports = { ROOT, modified, sourcesModified };
