"use strict";

const { EXIT, Failure, Interruption, wrongUsage } = require("../failures.js");

const PARTS = /^([a-z][a-z+]*):\/\/(?:([^/?#]*)@)?([^/?#]*)([^?#]*)/i;
// The parameters in which drivers take one, too.
const SECRET_PARAMETER = /[?&][a-z]*pass(?:word|phrase)?=/i;

/** The server of another store: its URL, which may have a password, and how errors show it, which has none. */
class ServerUrl {
  #task;

  constructor(task, url) {
    this.#task = task;
    const [, scheme, , hosts, database] = PARTS.exec(url);
    this.url = url;
    this.shown = `${scheme}://${hosts}${database}`;
  }

  /**
   * The result of what a driver is asked, unless the task is interrupted before. An error of the driver becomes the `cause`
   * of a failure, as its message may have the URL in it.
   */
  async attempt(work) {
    try {
      return await this.#task.interruptible(work);
    } catch (error) {
      if (error instanceof Interruption || error instanceof Failure) throw error;
      // Where a name has several addresses, only the errors of each have a message.
      const { message } = error.errors?.[0] ?? error;
      const reason = message.split("\n")[0].replaceAll(this.url, this.shown);
      throw Object.assign(new Failure(EXIT.failed, `cannot read ${this.shown}: ${reason}`), { cause: error });
    }
  }
}

/**
 * The server that the task's operand names, or else the variable of the environment.
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
