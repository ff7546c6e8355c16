"use strict";

// Loads the addon. This file and its imports must parse in Node.js 14, which then gets an error that it is too old.

const { SessionStoreError } = require("./errors.js");
const { faultOfNode } = require("./node-version.js");

const PACKAGE = "@fluidauth/native-store";
const NOT_FOUND = /^Cannot find (?:module|package) '([^']+)'/;
// The generated loader asks for builds that this package does not have.
const WEBASSEMBLY = /wasi|wasm/;

const REMEDIES = [
  [/addons is disabled/, "start Node.js without --no-addons, and with --allow-addons if it has --permission"],
  [/allow-ffi/, "start Deno with --allow-ffi"],
];
const INSTALL_AGAIN =
  "install the package again on this machine, with its optional dependencies: a node_modules folder of another " +
  "platform does not work, nor does a bundle without the .node file";

function loadError(reason, cause) {
  const message = `${PACKAGE} cannot be loaded: ${reason}`;
  return new SessionStoreError("ERR_ADDON_LOAD", message, cause && { cause });
}

const firstLineOf = ({ message }) => String(message).split("\n")[0].replace(/\.$/, "");

/** Returns the attempts of the generated loader, in order. Each of its errors has the previous one as its cause. */
function attemptsOf(error) {
  const attempts = [];
  for (let at = error.cause || error; at; at = at.cause) attempts.unshift(firstLineOf(at));
  const native = attempts.filter((message) => !WEBASSEMBLY.test(message));
  return native.length > 0 ? native : attempts;
}

/** The C library of a Linux system. Each has its own build of the addon. */
function libraryOf(platform) {
  if (platform !== "linux") return "";
  try {
    const { glibcVersionRuntime } = process.report.getReport().header;
    return glibcVersionRuntime ? ` with glibc ${glibcVersionRuntime}` : " with musl";
  } catch (_) {
    return "";
  }
}

function describe(attempts) {
  const { platform, arch } = process;
  const system = `${platform}-${arch}${libraryOf(platform)}`;
  const failure = attempts.find((message) => !NOT_FOUND.test(message));
  if (failure === undefined) {
    const files = attempts.map((message) => NOT_FOUND.exec(message)[1]).join(", ");
    return `there is no addon for ${system} (looked for ${files}); ${INSTALL_AGAIN}`;
  }
  const [, remedy] = REMEDIES.find(([pattern]) => pattern.test(failure)) || [null, INSTALL_AGAIN];
  return `its addon for ${system} does not load: ${failure}; ${remedy}`;
}

function load() {
  const fault = faultOfNode();
  if (fault !== undefined) throw loadError(fault);
  let binding;
  try {
    binding = require("../binding.js");
  } catch (error) {
    throw loadError(describe(attemptsOf(error)), error);
  }
  // The generated loader lists the functions of its own addon version.
  const missing = Object.keys(binding).find((name) => binding[name] === undefined);
  if (missing === undefined) return binding;
  throw loadError(`its addon is of another version or package, as it has no ${missing}; ${INSTALL_AGAIN}`);
}

module.exports = load();
