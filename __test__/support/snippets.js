"use strict";

// Finds and checks the code blocks of Markdown pages.

const { execFile, fork, spawnSync } = require("node:child_process");
const fs = require("node:fs");
const path = require("node:path");
const { commands } = require("../../lib/cli/commands.js");
const { commonOptions } = require("../../lib/cli/common-options.js");
const { scripts } = require("../../package.json");
const { addFluidAuth, linkModules, moduleOf } = require("./linked-app.js");

const SNIPPETS = path.join(__dirname, "../snippets");
const PRELOAD = path.join(SNIPPETS, "preload.cjs");
const FENCE = /^( *)```(\w*)[^\n]*\n([\s\S]*?)^ *```$/gm;
const JAVASCRIPT = new Set(["js", "mjs", "cjs"]);
const SHELL = new Set(["sh", "bash"]);

/** Whether code is a whole server: it has all its imports, uses no other file, and listens. */
const isWholeApp = (code) =>
  /\b(import|require)\b/.test(code) && !/["']\.\.?\//.test(code) && /\.listen\(/.test(code);

/** Returns the code blocks of a page: `{ page, line, language, code, isApp }`. */
function blocksOf(page, text) {
  return [...text.matchAll(FENCE)].map(({ index, 1: indent, 2: language, 3: body }) => {
    const code = body.replaceAll(new RegExp(`^${indent}`, "gm"), "");
    const line = text.slice(0, index).split("\n").length + 1;
    return { page, line, language, code, isApp: isWholeApp(code) };
  });
}

/** Matches a signature like `size(): Promise<number>;`. */
const isSignature = ({ language, code }) =>
  language === "ts" && /^(readonly )?[\w[][\w.\]]*(<.*>)?(\(.*\))?: .*;$/m.test(code.split("\n")[0]);

/** Returns code, on the same lines, that compiles if a type of this package has these members. */
const asInterface = (code) =>
  `interface Members { ${code.trimEnd()} } export const has: Has<Members> = true;\n`;

const placeOf = ({ page, line }) => `${page}:${line}`;

/** Writes blocks to files, with the code on the same lines as in the page. Returns the files by block. */
function writeBlocks(folder, blocks, extensionOf) {
  return new Map(
    blocks.map((block) => {
      const file = `${block.page.replaceAll(/\W/g, "-")}-${block.line}${extensionOf(block)}`;
      const code = isSignature(block) ? asInterface(block.code) : block.code;
      fs.writeFileSync(path.join(folder, file), "\n".repeat(block.line - 1) + code);
      return [block, file];
    }),
  );
}

const COMPILED =
  "--noEmit --pretty false --target es2022 --module node16 --skipLibCheck --types node --preserveSymlinks";

/** Returns TypeScript's errors in files: `[file, line, code, message]`. */
function compile(folder, files, options) {
  const args = [...COMPILED.split(" "), "--lib", "es2022,esnext.disposable", ...options, ...files];
  return new Promise((resolve) => {
    execFile(process.execPath, [moduleOf("typescript/bin/tsc"), ...args], { cwd: folder }, (_, stdout) => {
      const found = stdout.matchAll(/^(\S+)\((\d+),\d+\): error TS(\d+): (.*)$/gm);
      const errors = [...found].map(([, file, line, code, message]) => [file, line, Number(code), message]);
      const others = stdout.split("\n").filter((text) => /^error/.test(text));
      resolve([...errors, ...others.map((message) => ["", "", 0, message])]);
    });
  });
}

const AWAIT = /^The current file is a CommonJS module and cannot use 'await'/;
const UNKNOWN_FILE = /^Cannot find module '\.\.?\//;
const UNKNOWN_NAME = /^(?:Cannot find name|No value exists in scope for the shorthand property) '([^']+)'/;

/**
 * Ignores errors that the surrounding app of a fragment would avoid: await, files and names. A class must be imported.
 */
function isOfTheApp(block, message) {
  if (block.isApp) return false;
  if (AWAIT.test(message)) return true;
  const [, name = ""] = UNKNOWN_NAME.exec(message) ?? [];
  return UNKNOWN_FILE.test(message) || /^[a-z]/.test(name);
}

async function faultsInCode(folder, blocks, extensionOf, options, ambient) {
  if (blocks.length === 0) return [];
  for (const name of ambient) fs.copyFileSync(path.join(SNIPPETS, name), path.join(folder, name));
  const files = writeBlocks(folder, blocks, extensionOf);
  const blockOf = new Map([...files].map(([block, file]) => [file, block]));
  const faults = await compile(folder, [...files.values(), ...ambient], options);
  return faults
    .filter(([file, , , message]) => !blockOf.has(file) || !isOfTheApp(blockOf.get(file), message))
    .map(([file, line, , message]) => `${blockOf.get(file)?.page ?? file}:${line}: ${message}`);
}

/** Finds names that this package does not export, unknown options, and invalid calls. */
function faultsInJavaScript(folder, blocks) {
  const extensionOf = ({ code }) => (/\brequire\(/.test(code) ? ".cjs" : ".mjs");
  const options = ["--allowJs", "--checkJs", "--strict", "false"];
  return faultsInCode(folder, blocks, extensionOf, options, [
    "globals.d.ts",
    "frameworks.d.ts",
    "not-installed.d.ts",
  ]);
}

function faultsInTypeScript(folder, blocks) {
  const options = ["--strict", "--noImplicitAny", "false", "--experimentalDecorators"];
  return faultsInCode(folder, blocks, () => ".mts", options, ["not-installed.d.ts", "signatures.d.ts"]);
}

/** Finds unknown commands and options of this package, unknown npm scripts, and shell syntax errors. */
function faultsInShell(blocks) {
  return blocks.flatMap((block) => {
    // A synopsis has placeholders: <id>.
    const code = block.code.replaceAll(/<[a-z-]+>/g, "x");
    const { status, stderr } = spawnSync("bash", ["-n"], { input: code, encoding: "utf8" });
    const faults = status === 0 ? [] : [stderr.trim()];
    for (const [call, name, rest] of code.matchAll(/\bnative-store ([a-z][\w-]*)([^\n|;&]*)/g)) {
      const command = commands[name];
      if (command === undefined && name !== "help") faults.push(`${call}: there is no such command`);
      const known = { ...commonOptions, ...command?.options };
      for (const [, option] of rest.matchAll(/\s--([a-z-]+)/g)) {
        if (!Object.hasOwn(known, option)) faults.push(`${call}: there is no option --${option}`);
      }
    }
    if (block.page === "README.md" || block.page === "CONTRIBUTING.md") {
      for (const [call, name] of code.matchAll(/^npm run ([\w:-]+)/gm)) {
        if (!Object.hasOwn(scripts, name)) faults.push(`${call}: there is no such script`);
      }
    }
    return faults.map((fault) => `${placeOf(block)}: ${fault}`);
  });
}

/** Returns the problems of code blocks, as readable text. `folder` is new. */
async function faultsOf(folder, blocks) {
  fs.mkdirSync(folder);
  linkModules(folder);
  const of = (languages) => blocks.filter(({ language }) => languages.has(language));
  const [javaScript, typeScript] = await Promise.all([
    faultsInJavaScript(folder, of(JAVASCRIPT)),
    faultsInTypeScript(folder, of(new Set(["ts"]))),
  ]);
  return [...javaScript, ...typeScript, ...faultsInShell(of(SHELL))];
}

/**
 * Starts an app from a page in a separate folder, and resolves to `{ child, url }`. Its folders in /var are placed
 * there, too.
 */
async function startApp(folder, { code }) {
  fs.mkdirSync(folder);
  linkModules(folder);
  addFluidAuth(folder);
  const file = path.join(folder, /\brequire\(/.test(code) ? "app.cjs" : "app.mjs");
  fs.writeFileSync(file, code.replaceAll('"/var/', `"${folder}/var/`));
  const child = fork(file, {
    cwd: folder,
    execArgv: ["--require", PRELOAD],
    env: {
      ...process.env,
      HOME: folder,
      NATIVE_STORE_PATH: path.join(folder, "sessions"),
      SESSION_SECRET: "a secret of 32 characters or more",
    },
    stdio: ["ignore", "ignore", "pipe", "ipc"],
  });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text) => {
    stderr += text;
  });
  return new Promise((resolve, reject) => {
    child.once("message", ({ port }) => resolve({ child, url: `http://127.0.0.1:${port}` }));
    child.once("exit", (status) => reject(new Error(`the app ended with ${status}: ${stderr}`)));
  });
}

module.exports = { blocksOf, faultsOf, placeOf, startApp };
