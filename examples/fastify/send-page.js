"use strict";

const { SECURITY_HEADERS } = require("../shared/http");

// A back button must not show an account that was logged out.
const HEADERS = {
  ...SECURITY_HEADERS,
  "Cache-Control": "no-store",
  "Content-Type": "text/html; charset=utf-8",
};

const sendPage = (reply, page) => reply.headers(HEADERS).send(String(page));

module.exports = { sendPage };
