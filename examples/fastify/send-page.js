"use strict";

const { SECURITY_HEADERS } = require("../shared/http");

// The back button must not show the account after a logout.
const HEADERS = {
  ...SECURITY_HEADERS,
  "Cache-Control": "no-store",
  "Content-Type": "text/html; charset=utf-8",
};

const sendPage = (reply, page) => reply.headers(HEADERS).send(String(page));

module.exports = { sendPage };
