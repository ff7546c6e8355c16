"use strict";

const { FileStore, RedisStore } = require("@fluidauth/native-store");

const LOCAL = "redis://127.0.0.1:6379";
const KINDS = ["file", "redis"];

/** Returns a URL without its password, for display. */
function shownUrl(text) {
  if (!URL.canParse(text)) return "Redis";
  const { protocol, host, pathname } = new URL(text);
  return `${protocol}//${host}${pathname}`;
}

/**
 * Opens the store that the environment selects: a FileStore in this folder, or with `STORE=redis` the server of
 * `REDIS_URL`. `prefix` separates the sessions of several apps there.
 */
function chosenStore(folder, prefix) {
  const kind = process.env.STORE || "file";
  if (!KINDS.includes(kind)) throw new Error(`STORE must be ${KINDS.join(" or ")}, not "${kind}".`);
  if (kind === "file") return { Store: FileStore, options: { path: folder }, place: folder };
  const url = process.env.REDIS_URL || LOCAL;
  return { Store: RedisStore, options: { url, prefix }, place: shownUrl(url) };
}

module.exports = { chosenStore };
