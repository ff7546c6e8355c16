"use strict";

const SECURITY_HEADERS = {
  "Content-Security-Policy":
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
  "Referrer-Policy": "same-origin",
  "X-Content-Type-Options": "nosniff",
};

// The cookies are SameSite=Strict already; this keeps other sites from logging a visitor in as someone else.
function isCrossSitePost({ method, headers }) {
  const from = headers["sec-fetch-site"];
  return method === "POST" && Boolean(from) && from !== "same-origin" && from !== "none";
}

// On this machine or in a private network; they say whether the browser spoke HTTPS.
const TRUSTED_PROXIES = "loopback, linklocal, uniquelocal";

/** A field of a form or an address, which is a list where it is given twice, and undefined where it is not. */
const text = (value) => (typeof value === "string" ? value : "");

module.exports = { SECURITY_HEADERS, isCrossSitePost, TRUSTED_PROXIES, text };
