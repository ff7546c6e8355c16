"use strict";

// `--check` fails if the package would contain code under a licence that is not allowed. `--write` writes the notices
// that the package must contain.
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { choose } = require("./spdx");

const ROOT = path.join(__dirname, "..");
const NOTICES = path.join(ROOT, "THIRD_PARTY_NOTICES.txt");
const LICENSE_FILE = /^(licen[cs]e|copying|copyright$|unlicense|notice)/i;

/** Returns the crates of the addon on all platforms: those in the addon, and those that only build it. */
function readCrates() {
  const { targets } = require("../package.json").napi;
  const platforms = targets.flatMap((target) => ["--filter-platform", target]);
  const options = { cwd: ROOT, encoding: "utf8", maxBuffer: 1 << 28 };
  const metadata = JSON.parse(
    execFileSync("cargo", ["metadata", "--locked", "--format-version", "1", ...platforms], options),
  );
  const crates = new Map(metadata.packages.map((crate) => [crate.id, crate]));
  const nodes = new Map(metadata.resolve.nodes.map((node) => [node.id, node]));

  const reach = (isFollowed) => {
    const reached = new Set([metadata.resolve.root]);
    for (const id of reached) {
      for (const dep of nodes.get(id).deps) {
        if (dep.dep_kinds.some(({ kind }) => isFollowed(kind, crates.get(dep.pkg)))) reached.add(dep.pkg);
      }
    }
    reached.delete(metadata.resolve.root);
    return [...reached].map((id) => crates.get(id)).sort((one, other) => (one.name < other.name ? -1 : 1));
  };
  const isMacro = (crate) => crate.targets.some((target) => target.kind.includes("proc-macro"));
  return {
    used: reach((kind) => kind !== "dev"),
    linked: reach((kind, crate) => kind === null && !isMacro(crate)),
  };
}

/** Returns the packages that npm would install with this package: today none. */
function readProductionPackages() {
  const { packages } = require("../package-lock.json");
  return Object.entries(packages)
    .filter(([location, { dev, devOptional }]) => location !== "" && !dev && !devOptional)
    .map(([location, { version, license }]) => {
      const manifest = path.join(ROOT, location, "package.json");
      return { name: location, version, license: license ?? JSON.parse(fs.readFileSync(manifest)).license };
    });
}

function check(packages) {
  const refused = packages.filter(({ license }) => choose(license) === null);
  if (refused.length === 0) return;
  const list = refused.map(
    ({ name, version, license }) => `  ${name} ${version}: ${license ?? "no licence"}`,
  );
  throw new Error(
    `These licences are not allowed (scripts/spdx.js lists those that are):\n${list.join("\n")}`,
  );
}

/** Returns the licence texts of a crate, including those of its bundled C sources. */
function licenseTexts(crate, crates) {
  const directory = path.dirname(crate.manifest_path);
  const files = fs.readdirSync(directory, { recursive: true }).filter((file) => {
    return LICENSE_FILE.test(path.basename(file)) && fs.statSync(path.join(directory, file)).isFile();
  });
  const own = files.filter((file) => path.dirname(file) === ".");
  const vendored = files.filter((file) => path.dirname(file) !== ".");
  const licenses = choose(crate.license);
  const chosen = licenses.map((license) => fileOf(license, own));
  const read = (file) => fs.readFileSync(path.join(directory, file), "utf8");
  if (chosen.includes(undefined)) return [standardText(crate, crates), ...vendored.map(read)];
  // Only the Apache licence requires the NOTICE.
  const notices = licenses.includes("Apache-2.0") ? own.filter((file) => /^notice/i.test(file)) : [];
  return [...chosen, ...notices, ...vendored].map(read);
}

function fileOf(license, files) {
  const word = license.split("-")[0].toUpperCase();
  return (
    files.find((file) => file.toUpperCase().includes(`-${word}`)) ??
    files.find((file) => !/-|notice/i.test(file))
  );
}

/**
 * Returns the standard text for a crate without one. All MIT texts are the same but for the copyright line, and the
 * Apache text is taken from another crate.
 */
function standardText({ name, license, authors }, crates) {
  const [chosen, ...more] = choose(license);
  if (chosen === "Apache-2.0" && more.length === 0) return apacheText(crates);
  if (chosen !== "MIT" || more.length > 0) throw new Error(`${name} (${license}) ships no licence text`);
  const terms = fs.readFileSync(path.join(ROOT, "LICENSE"), "utf8").split("\n").slice(3).join("\n");
  const holders = authors.map((author) => author.replace(/ <.*/, "")).join(", ");
  return `MIT License\n\nCopyright (c) ${holders || `The ${name} contributors`}\n${terms}`;
}

function apacheText(crates) {
  const texts = crates.map((crate) => path.join(path.dirname(crate.manifest_path), "LICENSE-APACHE"));
  return fs.readFileSync(
    texts.find((file) => fs.existsSync(file)),
    "utf8",
  );
}

function write(crates) {
  const rust = {
    name: "Rust's standard library",
    version: "",
    license: "MIT",
    authors: ["The Rust Project"],
  };
  const users = new Map([[standardText(rust).trim(), [rust]]]);
  for (const crate of crates) {
    for (const text of licenseTexts(crate, crates)) {
      const key = text.replaceAll("\r", "").trim();
      users.set(key, [...(users.get(key) ?? []), crate]);
    }
  }
  const sections = [...users].map(([text, crates]) => {
    const names = new Set(crates.map(({ name, version }) => `${name} ${version}`.trim()));
    return `${[...names].join(", ")}\n\n${text}\n`;
  });
  const head =
    "The addon of @fluidauth/native-store contains the software below, under the licences that follow it.\n";
  fs.writeFileSync(NOTICES, [head, ...sections].join(`\n${"-".repeat(80)}\n\n`));
}

function main() {
  const [mode] = process.argv.slice(2);
  if (mode !== "--check" && mode !== "--write") throw new Error("Usage: licenses.js --check | --write");
  const { used, linked } = readCrates();
  const packages = readProductionPackages();
  check([...used, ...packages]);
  if (mode === "--write") write(linked);
  console.log(`licences: ${used.length} crates and ${packages.length} npm packages, all allowed`);
}

try {
  main();
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
