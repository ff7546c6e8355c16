"use strict";

const SECURITY_HEADERS = {
  "Content-Security-Policy":
    "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
  "Referrer-Policy": "same-origin",
  "X-Content-Type-Options": "nosniff",
};

// The cookies are SameSite=Strict. This check also prevents other sites from logging a visitor in as someone else.
function isCrossSitePost({ method, headers }) {
  const from = headers["sec-fetch-site"];
  return method === "POST" && Boolean(from) && from !== "same-origin" && from !== "none";
}

// Proxies on this machine or in a private network. They report whether the browser used HTTPS.
const TRUSTED_PROXIES = "loopback, linklocal, uniquelocal";

/**
 * Converts a field of a form or a URL to a string. It is an array if it was sent twice, and undefined if it is missing.
 */
const text = (value) => (typeof value === "string" ? value : "");

module.exports = { SECURITY_HEADERS, isCrossSitePost, TRUSTED_PROXIES, text };
