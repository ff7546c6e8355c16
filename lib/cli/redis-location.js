"use strict";

const { reasonOf, wrongUsage } = require("./failures.js");
const fs = require("node:fs");
const { faultOfPlace, isUnixSocket, parsePlace } = require("../redis-servers.js");

/**
 * Parses URLs to the options of a `RedisStore`, and to a form without a password. Several URLs are nodes of one
 * cluster.
 */
function redisLocation(text, origin, options) {
  const urls = text.split(",").map((each) => each.trim());
  const places = urls.map((url) => readUrl(url, origin));
  const { NATIVE_STORE_REDIS_PASSWORD } = process.env;
  const password = places.every((place) => place.password === "") ? NATIVE_STORE_REDIS_PASSWORD : undefined;
  const shown = urls.map((url, at) => showUrl(url, places[at])).join(",");
  const [first, ...others] = urls;
  const ca = options["redis-ca"] === undefined ? {} : { tls: { ca: readAuthority(options["redis-ca"]) } };
  return {
    shown,
    origin,
    redis: {
      ...(others.length > 0 ? { cluster: [first, ...others] } : { url: first }),
      ...(options["redis-prefix"] !== undefined && { prefix: options["redis-prefix"] }),
      ...(password && { password }),
      ...ca,
    },
  };
}

function readUrl(text, origin) {
  const url = parsePlace(text);
  const fault = faultOfPlace(text) ?? (url === null ? "a string that is not a URL" : undefined);
  if (fault !== undefined) {
    throw wrongUsage(`${origin} must be a URL such as redis://127.0.0.1:6379; got ${fault}`);
  }
  if (origin === "--redis" && url.password !== "") {
    throw wrongUsage(
      "a password on the command line can be seen by every user of the machine: NATIVE_STORE_REDIS_PASSWORD takes it",
    );
  }
  return url;
}

/** Returns a URL without its login. */
function showUrl(text, { protocol, host, pathname }) {
  return isUnixSocket(text) ? `unix://${pathname}` : `${protocol}//${host}${pathname}`.replace(/\/$/, "");
}

function readAuthority(file) {
  try {
    return fs.readFileSync(file, "utf8");
  } catch (error) {
    throw wrongUsage(`cannot read the certificates of ${file}: ${reasonOf(error)}`);
  }
}

module.exports = { redisLocation };
