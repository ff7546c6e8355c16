"use strict";

const { scrypt, timingSafeEqual } = require("node:crypto");
const { promisify } = require("node:util");

const deriveKey = promisify(scrypt);

// `password` is salt:key, both in hex, from scrypt with Node's defaults.
const USERS = [
  {
    id: 1,
    name: "Ada Lovelace",
    email: "ada@example.com",
    password:
      "642f7743238674fe1ba42faaa6169271:cbf9f79039097aef521f745c363822ef3b265cb8fdd580b25d44b77ee026af59",
  },
  {
    id: 2,
    name: "Grace Hopper",
    email: "grace@example.com",
    password:
      "b70c20a954b12486ecf63c34ec225fe5:6fef8f730303e1dd94bc83311cbf3d21a4c2679632e4de39b40f644c3ba68987",
  },
];

// The example shows these so that you can try it. Never do this in your app.
const DEMO_LOGINS = [
  { email: "ada@example.com", password: "analytical-engine" },
  { email: "grace@example.com", password: "nanoseconds" },
];

// Checked for an unknown address, so that the response time does not reveal which addresses exist.
const NOBODY = `${"00".repeat(16)}:${"00".repeat(32)}`;

async function passwordMatches(password, stored) {
  const [salt, key] = stored.split(":").map((hex) => Buffer.from(hex, "hex"));
  return timingSafeEqual(await deriveKey(password, salt, key.length), key);
}

async function authenticate(email, password) {
  const user = USERS.find((candidate) => candidate.email === email.trim().toLowerCase());
  const matches = await passwordMatches(password, user?.password ?? NOBODY);
  return user && matches ? user : null;
}

function findUser(id) {
  return USERS.find((user) => user.id === id) ?? null;
}

module.exports = { DEMO_LOGINS, authenticate, findUser };
