"use strict";

const { reasonOf, wrongUsage } = require("./failures.js");
const fs = require("node:fs");
const { faultOfPlace } = require("../redis-servers.js");

/**
 * The options of the `RedisStore` that a text of URLs names, several of which are nodes of one cluster, and how to
 * show it.
 */
function redisLocation(text, origin, options) {
  const urls = text.split(",").map((each) => readUrl(each.trim(), origin));
  const { NATIVE_STORE_REDIS_PASSWORD: password } = process.env;
  const shown = urls.map((url) => `${url.protocol}//${url.host}${url.pathname}`.replace(/\/$/, "")).join(",");
  for (const url of urls) if (password && url.password === "") url.password = password;
  const [first, ...others] = urls.map(String);
  const ca = options["redis-ca"] === undefined ? {} : { tls: { ca: readAuthority(options["redis-ca"]) } };
  return {
    shown,
    origin,
    redis: {
      ...(others.length > 0 ? { cluster: [first, ...others] } : { url: first }),
      ...(options["redis-prefix"] !== undefined && { prefix: options["redis-prefix"] }),
      ...ca,
    },
  };
}

function readUrl(text, origin) {
  const fault = faultOfPlace(text) ?? (URL.canParse(text) ? undefined : "a text that is no URL");
  if (fault !== undefined) {
    throw wrongUsage(`${origin} must be a URL such as redis://127.0.0.1:6379; got ${fault}`);
  }
  const url = new URL(text);
  if (origin === "--redis" && url.password !== "") {
    throw wrongUsage(
      "a password on the command line can be seen by every user of the machine: NATIVE_STORE_REDIS_PASSWORD takes it",
    );
  }
  return url;
}

function readAuthority(file) {
  try {
    return fs.readFileSync(file, "utf8");
  } catch (error) {
    throw wrongUsage(`cannot read the certificates of ${file}: ${reasonOf(error)}`);
  }
}

module.exports = { redisLocation };
