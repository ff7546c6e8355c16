"use strict";

const { FileStore, RedisStore } = require("@fluidauth/native-store");

const LOCAL = "redis://127.0.0.1:6379";
const KINDS = ["file", "redis"];

/** Where sessions are kept, as people may read it: without a password. */
function shownUrl(text) {
  if (!URL.canParse(text)) return "Redis";
  const { protocol, host, pathname } = new URL(text);
  return `${protocol}//${host}${pathname}`;
}

/**
 * The store that the environment asks for: a file in this folder, or with `STORE=redis` the server of `REDIS_URL`.
 * `prefix` keeps the sessions of several apps apart there.
 */
function chosenStore(folder, prefix) {
  const kind = process.env.STORE || "file";
  if (!KINDS.includes(kind)) throw new Error(`STORE must be ${KINDS.join(" or ")}, not "${kind}".`);
  if (kind === "file") return { Store: FileStore, options: { path: folder }, place: folder };
  const url = process.env.REDIS_URL || LOCAL;
  return { Store: RedisStore, options: { url, prefix }, place: shownUrl(url) };
}

module.exports = { chosenStore };
