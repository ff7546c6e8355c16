"use strict";

const { EXIT, Failure, Interruption, wrongUsage } = require("../failures.js");

const PARTS = /^([a-z][a-z+]*):\/\/(?:([^/?#]*)@)?([^/?#]*)([^?#]*)/i;
// URL parameters in which drivers accept a password.
const SECRET_PARAMETER = /[?&][a-z]*pass(?:word|phrase)?=/i;

/** The server of another store: its URL, which may have a password, and its form in errors, which has none. */
class ServerUrl {
  #task;

  constructor(task, url) {
    this.#task = task;
    const [, scheme, , hosts, database] = PARTS.exec(url);
    this.url = url;
    this.shown = `${scheme}://${hosts}${database}`;
  }

  /**
   * Returns the result of a driver call, unless the task is interrupted. An error of the driver becomes the `cause` of
   * a failure, because its message may contain the URL.
   */
  async attempt(work) {
    try {
      return await this.#task.interruptible(work);
    } catch (error) {
      if (error instanceof Interruption || error instanceof Failure) throw error;
      // If a name has several addresses, only the errors of the attempts have a message.
      const { message } = error.errors?.[0] ?? error;
      const reason = message.split("\n")[0].replaceAll(this.url, this.shown);
      throw Object.assign(new Failure(EXIT.failed, `cannot read ${this.shown}: ${reason}`), { cause: error });
    }
  }
}

/**
 * Returns the server of the task's operand, or of the environment variable.
 * @param {{ schemes: string[], example: string }} accepted
 */
function readServerUrl(task, { schemes, example }) {
  const { operand } = task;
  const origin = operand === undefined ? "NATIVE_STORE_FROM_URL" : "the URL of the old store";
  const url = operand ?? process.env.NATIVE_STORE_FROM_URL;
  const [, scheme, login] = PARTS.exec(url) ?? [];
  if (!schemes.includes(scheme?.toLowerCase())) throw wrongUsage(`${origin} must be such as ${example}`);
  const hasPassword = login?.includes(":") || SECRET_PARAMETER.test(url);
  if (operand !== undefined && hasPassword) {
    throw wrongUsage(
      "a password on the command line can be seen by every user of the machine: NATIVE_STORE_FROM_URL takes the URL",
    );
  }
  return new ServerUrl(task, url);
}

module.exports = { readServerUrl };
