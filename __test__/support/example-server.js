"use strict";

// Examples in separate processes, and a minimal browser for their tests.

const { spawn } = require("node:child_process");
const { once } = require("node:events");
const http = require("node:http");
const path = require("node:path");

const ADA = { email: "ada@example.com", password: "analytical-engine" };
const GRACE = { email: "grace@example.com", password: "nanoseconds" };
const FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
const IPHONE =
  "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1";

const children = new Set();

const serverOf = (example) => path.join(__dirname, `../../examples/${example}/server.js`);

/** Starts a server on a free port, and resolves when it has printed its URL, and `also`. */
async function startFile(file, env, also = "") {
  const child = spawn(process.execPath, [file], {
    env: { ...process.env, PORT: "0", HOST: "127.0.0.1", ...env },
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.add(child);
  let output = "";
  for await (const chunk of child.stdout) {
    output += chunk;
    const url = /http:\S+/.exec(output)?.[0];
    if (url && output.includes(also)) return { child, url };
  }
  throw new Error(`the server said ${output}`);
}

const start = (example, dataDir, env) =>
  startFile(serverOf(example), { DATA_DIR: dataDir, ...env }, "kept in");

/** Ends a process, and resolves to its exit code. */
async function kill(child, signal = "SIGKILL") {
  children.delete(child);
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
  child.kill(signal);
  const [code] = await once(child, "exit");
  return code;
}

/** For the `after` of a suite: a leftover process of a failed test would keep this one alive. */
async function killAll() {
  await Promise.all([...children].map((child) => kill(child)));
}

/** A name and a cookie. */
class Client {
  cookie = "";
  /** The last `Set-Cookie`. */
  set = "";

  constructor(url, cookieName, userAgent = FIREFOX) {
    this.url = url;
    this.cookieName = cookieName;
    this.userAgent = userAgent;
  }

  #headers() {
    return { "user-agent": this.userAgent, cookie: `${this.cookieName}=${this.cookie}` };
  }

  #take(setCookies) {
    const set = setCookies.at(-1);
    if (set === undefined) return;
    this.set = set;
    this.cookie = set.slice(this.cookieName.length + 1, set.indexOf(";"));
  }

  async request(path, { form, headers } = {}) {
    const response = await fetch(this.url + path, {
      method: form ? "POST" : "GET",
      body: form && new URLSearchParams(form),
      headers: { ...this.#headers(), ...headers },
      redirect: "manual",
    });
    this.#take(response.headers.getSetCookie());
    const location = response.headers.get("location");
    return { status: response.status, location, text: await response.text() };
  }

  post(path, form = {}) {
    return this.request(path, { form });
  }

  /** Sends a form without its body. Once the server handles it, resolves to a function that sends the rest. */
  async hold(path, form) {
    const body = String(new URLSearchParams(form));
    const request = http.request(this.url + path, {
      method: "POST",
      agent: false,
      headers: {
        ...this.#headers(),
        "Content-Type": "application/x-www-form-urlencoded",
        "Content-Length": Buffer.byteLength(body),
        Expect: "100-continue",
      },
    });
    await once(request, "continue");
    return async () => {
      request.end(body);
      const [response] = await once(request, "response");
      response.resume();
      await once(response, "end");
      return { status: response.statusCode, location: response.headers.location };
    };
  }

  async login(user = ADA) {
    await this.post("/login", user);
    return this;
  }

  async isLoggedIn() {
    return (await this.request("/")).status === 200;
  }

  /** Resolves to the sessions on the account page. */
  async sessions() {
    const { text } = await this.request("/");
    return text
      .split('<li class="card">')
      .slice(1)
      .map((item) => ({
        isCurrent: item.includes("This one"),
        device: /<h3[^>]*>([^<]*?)\s*</.exec(item)[1],
        handle: /name="session" value="([^"]+)"/.exec(item)[1],
      }));
  }

  /** Resolves to the name of this client's session on the account page. */
  async handle() {
    return (await this.sessions()).find((session) => session.isCurrent).handle;
  }
}

module.exports = { ADA, Client, FIREFOX, GRACE, IPHONE, kill, killAll, serverOf, start, startFile };
