"use strict";

const { createCipheriv, createDecipheriv, hkdfSync, randomBytes } = require("node:crypto");

const ALGORITHM = "aes-256-gcm";
const NONCE_BYTES = 12;
const TAG_BYTES = 16;

/** Encrypts session ids for a cookie, so that leaked ids of the store cannot be used as cookies. */
class IdSealer {
  #key;

  constructor(secret) {
    this.#key = Buffer.from(hkdfSync("sha256", secret, "", "session id in a cookie", 32));
  }

  seal(sessionId) {
    const nonce = randomBytes(NONCE_BYTES);
    const cipher = createCipheriv(ALGORITHM, this.#key, nonce, { authTagLength: TAG_BYTES });
    const text = Buffer.concat([cipher.update(sessionId, "utf8"), cipher.final()]);
    return Buffer.concat([nonce, cipher.getAuthTag(), text]).toString("base64url");
  }

  /** Returns the session id, or `null` for anything that is not from `seal` with this secret. */
  open(sealed) {
    const bytes = Buffer.from(String(sealed), "base64url");
    if (bytes.length <= NONCE_BYTES + TAG_BYTES) return null;
    const nonce = bytes.subarray(0, NONCE_BYTES);
    const tag = bytes.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES);
    const text = bytes.subarray(NONCE_BYTES + TAG_BYTES);
    const decipher = createDecipheriv(ALGORITHM, this.#key, nonce, { authTagLength: TAG_BYTES });
    decipher.setAuthTag(tag);
    try {
      return Buffer.concat([decipher.update(text), decipher.final()]).toString("utf8");
    } catch {
      return null;
    }
  }
}

module.exports = { IdSealer };
