"use strict";

// Runs before `npm pack` and `npm publish`. Fails if a file is missing or stale.
const fs = require("node:fs");
const path = require("node:path");
const manifest = require("../package.json");
const { ROOT, modified, sourcesModified } = require("./sources");

/** Checks a local package, which contains the addon of the machine that built it. */
function faultOfLocalPackage(addons) {
  const expected = `${manifest.napi.binaryName}.${process.platform}-${process.arch}`;
  if (addons.length !== 1 || !addons[0].startsWith(expected)) {
    return `it needs the addon ${expected}*.node and no other; there is ${addons.join(", ") || "none"}: npm run build`;
  }
  return modified(path.join(ROOT, addons[0])) < sourcesModified()
    ? `${addons[0]} is older than the Rust sources: npm run build`
    : null;
}

/** Checks a release, which contains no addon: `napi prepublish` has named a package for each platform. */
function faultOfRelease(addons, platforms) {
  if (addons.length > 0) return `a release brings no addon of its own; there is ${addons.join(", ")}`;
  if (platforms.length !== manifest.napi.targets.length) {
    return `it names ${platforms.length} platform packages for ${manifest.napi.targets.length} targets`;
  }
  const other = platforms.find(([, version]) => version !== manifest.version);
  return other ? `${other[0]} is of version ${other[1]}, not ${manifest.version}` : null;
}

function faultOfPackage() {
  if (!fs.existsSync(path.join(ROOT, "binding.js"))) return "binding.js is missing: npm run build";
  const addons = fs.readdirSync(ROOT).filter((file) => file.endsWith(".node"));
  const platforms = Object.entries(manifest.optionalDependencies ?? {});
  return platforms.length > 0 ? faultOfRelease(addons, platforms) : faultOfLocalPackage(addons);
}

const fault = faultOfPackage();
if (fault) {
  console.error(`This package cannot be packed: ${fault}`);
  process.exitCode = 1;
}
