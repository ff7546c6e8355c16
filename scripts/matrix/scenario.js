"use strict";

// What each cell does with an app: two logins, a kill, a restart, a logout everywhere, and a stop.
const { spawn } = require("node:child_process");
const { once } = require("node:events");
const { setTimeout: wait } = require("node:timers/promises");
const { isDeepStrictEqual } = require("node:util");

const DEADLINE = 30_000;
const KEPT = 2000;

const children = new Set();
// An interrupted run leaves none behind.
process.once("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});

/** A program that serves HTTP on the URL that it prints. */
class App {
  #child;
  #exit;
  #said = "";

  constructor({ command, args, cwd, env }) {
    this.#child = spawn(command, args, {
      cwd,
      env: { ...process.env, ...env },
      stdio: ["ignore", "pipe", "pipe"],
    });
    children.add(this.#child);
    // `close` comes after the last output.
    this.#exit = once(this.#child, "close").finally(() => children.delete(this.#child));
    this.#exit.catch(() => {});
  }

  /** Resolves once it serves. */
  async started() {
    const url = new Promise((resolve) => {
      for (const stream of [this.#child.stdout, this.#child.stderr]) {
        stream.setEncoding("utf8").on("data", (text) => {
          this.#said = (this.#said + text).slice(-KEPT);
          const [found] = /http:\/\/127\.0\.0\.1:\d+/.exec(this.#said) ?? [];
          if (found) resolve(found);
        });
      }
    });
    const ended = this.#exit.then(([code, signal]) => {
      throw new Error(`the app ended with ${code ?? signal} before it served${this.#output()}`);
    });
    this.url = await Promise.race([url, ended, this.#late("did not serve")]);
    return this;
  }

  async kill() {
    this.#child.kill("SIGKILL");
    if (this.#child.pid !== undefined) await this.#exit;
  }

  /** Lets it close its store. Windows has no such signal: there this is a kill. */
  async stop() {
    this.#child.kill("SIGTERM");
    const [code] = await Promise.race([this.#exit, this.#late("did not end after SIGTERM")]);
    if (code !== 0 && process.platform !== "win32") {
      throw new Error(`the app ended with ${code}, not with 0, after SIGTERM${this.#output()}`);
    }
  }

  async #late(what) {
    await wait(DEADLINE, undefined, { ref: false });
    throw new Error(`the app ${what} within ${DEADLINE / 1000} s${this.#output()}`);
  }

  #output() {
    return this.#said === "" ? "" : `:\n${this.#said.trimEnd()}`;
  }
}

/** A browser with one cookie. */
class Browser {
  #cookie = "";

  async #request(app, path, method) {
    const response = await fetch(app.url + path, {
      method,
      headers: { cookie: this.#cookie, connection: "close" },
      signal: AbortSignal.timeout(DEADLINE),
    });
    const [set] = response.headers.getSetCookie();
    if (set) this.#cookie = set.split(";")[0];
    const text = await response.text();
    if (!response.ok)
      throw new Error(`${method} ${path} answered ${response.status}: ${text.slice(0, KEPT)}`);
    return JSON.parse(text);
  }

  get = (app) => this.#request(app, "/", "GET");
  post = (app, path) => this.#request(app, path, "POST");
}

function expect(when, found, expected) {
  if (isDeepStrictEqual(found, expected)) return;
  throw new Error(`${when}: the app answered ${JSON.stringify(found)}, not ${JSON.stringify(expected)}`);
}

/**
 * Runs an app through all of it. Throws an Error that names the step that went wrong.
 * @param {object} program What to start: `{ command, args, cwd, env }`.
 * @param {object} expected `runtime` is what the app must say it runs on. `survives` is whether logins outlive the process.
 */
async function runScenario(program, { runtime, survives }) {
  const [phone, laptop] = [new Browser(), new Browser()];
  const out = { runtime, userId: null, devices: 0 };
  const logIn = async (app) => {
    for (const browser of [phone, laptop]) expect("login", await browser.post(app, "/login"), { userId: 1 });
  };
  const see = async (app, when, expected) => {
    for (const browser of [phone, laptop]) expect(when, await browser.get(app), expected);
  };
  let app;
  const start = async () => {
    app = new App(program);
    await app.started();
  };

  try {
    await start();
    await see(app, "before a login", out);
    await logIn(app);
    await see(app, "after two logins", { runtime, userId: 1, devices: 2 });
    await app.kill();

    await start();
    await see(app, "after a restart", survives ? { runtime, userId: 1, devices: 2 } : out);
    if (!survives) await logIn(app);
    expect("logout everywhere", await phone.post(app, "/logout-everywhere"), { ended: 2 });
    await see(app, "after a logout everywhere", out);
    await app.stop();

    await start();
    await see(app, "after another restart", out);
    await app.stop();
  } finally {
    await app.kill();
  }
}

module.exports = { runScenario };
