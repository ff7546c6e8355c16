"use strict";

const assert = require("node:assert/strict");
const { spawnSync } = require("node:child_process");
const { once } = require("node:events");
const fs = require("node:fs");
const path = require("node:path");
const { after, afterEach, before, beforeEach, describe, it } = require("node:test");
const { FileStore } = require("..");
const { createApp } = require("../examples/login/app");
const { withDevices } = require("../examples/login/device-store");
const {
  ADA,
  Client,
  FIREFOX,
  GRACE,
  IPHONE,
  kill,
  killAll,
  serverOf,
  start,
} = require("./support/example-server.js");
const { makePlace } = require("./support/file-places.js");

const { next: newFolder } = makePlace();

const COOKIE = "login-example-session";

async function startExample() {
  const store = new (withDevices(FileStore))({ path: newFolder() });
  const server = createApp({ store, secret: "the secret of this test" }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const stop = async () => {
    server.close();
    server.closeAllConnections();
    await store.close();
  };
  return { store, url: `http://127.0.0.1:${server.address().port}`, stop };
}

const clientOf = (url, userAgent) => new Client(url, COOKIE, userAgent);

describe("the login example", () => {
  let example;
  let laptop;
  let phone;

  beforeEach(async () => {
    example = await startExample();
    laptop = clientOf(example.url);
    phone = clientOf(example.url, IPHONE);
  });

  afterEach(() => example.stop());

  it("sends an anonymous visitor to the login form", async () => {
    const { status, location } = await laptop.request("/");
    assert.deepEqual([status, location], [303, "/login"]);
    assert.match((await laptop.request("/login")).text, /<label for="password">/);
  });

  it("serves /healthz and /metrics", async () => {
    assert.match((await laptop.request("/healthz")).text, /^ok, in [\d.]+ ms\n$/);
    assert.match((await laptop.request("/metrics")).text, /^native_store_ready\{store="\w+"\} 1$/m);
  });

  it("shows who is logged in, with the session's device", async () => {
    const { status, location } = await laptop.post("/login", ADA);
    assert.deepEqual([status, location], [303, "/"]);
    assert.match((await laptop.request("/")).text, /Ada Lovelace/);
    const [session, ...others] = await laptop.sessions();
    assert.deepEqual([session.device, session.isCurrent, others], ["Firefox on Linux", true, []]);
  });

  it("answers a wrong password and an unknown address alike, and keeps the email in the form", async () => {
    for (const email of [ADA.email, '"><b>@example.com', "constructor"]) {
      const { status, text } = await laptop.post("/login", { email, password: "wrong" });
      assert.equal(status, 401);
      assert.match(text, /Email or password is wrong/);
      assert.ok(text.includes(`value="${email.replace('"><b>', "&quot;&gt;&lt;b&gt;")}"`));
    }
    assert.equal((await laptop.post("/login")).status, 401);
    assert.equal(laptop.cookie, "");
  });

  it("lets one session revoke another of the same user", async () => {
    await laptop.login();
    await phone.login();
    const devices = (await laptop.sessions()).map((session) => session.device);
    assert.deepEqual(devices, ["Firefox on Linux", "Safari on iPhone"]);
    await laptop.post("/sessions/revoke", { session: await phone.handle() });
    assert.equal(await phone.isLoggedIn(), false);
    assert.equal(await laptop.isLoggedIn(), true);
  });

  it("logs out here when a session revokes itself", async () => {
    await laptop.login();
    await phone.login();
    const { location } = await phone.post("/sessions/revoke", { session: await phone.handle() });
    assert.equal(location, "/login?notice=logged-out");
    assert.equal(phone.cookie, "");
    assert.equal(await laptop.isLoggedIn(), true);
  });

  it("revokes nothing of another user", async () => {
    await laptop.login(ADA);
    await phone.login(GRACE);
    await laptop.post("/sessions/revoke", { session: await phone.handle() });
    assert.equal(await phone.isLoggedIn(), true);
    assert.equal(await example.store.size(), 2);
  });

  it("logs out everywhere else, and everywhere, but never another user", async () => {
    const grace = await clientOf(example.url).login(GRACE);
    const tablet = await clientOf(example.url).login();
    await laptop.login();
    await phone.login();
    await laptop.post("/sessions/revoke-others");
    const alive = () => Promise.all([laptop, phone, tablet, grace].map((client) => client.isLoggedIn()));
    assert.deepEqual(await alive(), [true, false, false, true]);
    await phone.login();
    await laptop.post("/sessions/revoke-all");
    assert.equal(laptop.cookie, "");
    assert.deepEqual(await alive(), [false, false, false, true]);
  });

  it("ends the session at logout, and treats its stale cookie as anonymous", async () => {
    await laptop.login();
    const stale = laptop.cookie;
    await laptop.post("/logout");
    assert.equal(await example.store.size(), 0);
    for (const path of ["/", "/login", "/nowhere"]) {
      laptop.cookie = stale;
      assert.notEqual((await laptop.request(path)).status, 500);
      assert.equal(laptop.cookie, "", `${path} clears the cookie`);
    }
  });

  it("treats a garbage cookie as anonymous, and clears it", async () => {
    const { cookie } = await clientOf(example.url).login();
    for (const garbage of ["garbage", "a:b", "00".repeat(40), `${cookie.slice(0, -4)}AAAA`, "%F0%9F%A6%80"]) {
      laptop.cookie = garbage;
      assert.equal((await laptop.request("/login")).status, 200);
      assert.equal(laptop.cookie, "", `${garbage} is cleared`);
    }
  });

  it("treats an expired session as anonymous, and extends one near its end", async () => {
    await laptop.login();
    await phone.login();
    const [first, second] = await example.store.getByUser(1);
    await example.store.touch(first.sessionId, Date.now() - 1);
    await example.store.touch(second.sessionId, Date.now() + 60_000);
    assert.deepEqual([await laptop.isLoggedIn(), await phone.isLoggedIn()], [false, true]);
    const extended = await example.store.get(second.sessionId);
    assert.ok(Date.parse(extended.expires) > Date.now() + 25 * 60_000);
    assert.deepEqual([extended.device, extended.since], [second.device, second.since]);
  });

  it("replaces the browser's session when someone logs in again", async () => {
    await laptop.login(ADA);
    await laptop.login(GRACE);
    assert.match((await laptop.request("/")).text, /Grace Hopper/);
    assert.deepEqual(await example.store.getByUser(1), []);
  });

  it("escapes a hostile user agent, and shows no session id", async () => {
    laptop.userAgent = `<script>alert("1")</script>'&`;
    await laptop.login();
    const { text } = await laptop.request("/");
    assert.ok(text.includes("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&#39;&amp;"));
    assert.ok(!text.includes("<script"));
    for await (const id of example.store.ids()) assert.ok(!text.includes(id));
  });

  it("refuses a form that another site sends", async () => {
    const headers = { "sec-fetch-site": "cross-site" };
    assert.equal((await laptop.request("/login", { form: ADA, headers })).status, 403);
    assert.equal(laptop.cookie, "");
  });

  it("has a page for an unknown address and for a failing store, without a stack", async (t) => {
    assert.equal((await laptop.request("/nowhere")).status, 404);
    await laptop.login();
    const log = t.mock.method(console, "error", () => {});
    await example.store.close();
    const { status, text } = await laptop.request("/");
    assert.equal(status, 500);
    assert.doesNotMatch(text, /ERR_|at .*\.js/);
    assert.equal(log.mock.calls[0].arguments[0].code, "ERR_STORE_CLOSED");
  });
});

const CHROMIUM = process.env.CHROMIUM || "/usr/bin/chromium";
const skip = fs.existsSync(CHROMIUM)
  ? false
  : "no Chromium here: install it (Debian and Ubuntu: apt-get install chromium) or set CHROMIUM to its path";
const CHROMIUM_ARGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

describe("the login example in a browser", { skip }, () => {
  let example;
  let browser;

  before(async () => {
    example = await startExample();
    const { chromium } = require("playwright-core");
    browser = await chromium.launch({ executablePath: CHROMIUM, args: CHROMIUM_ARGS });
  });

  after(async () => {
    await browser?.close();
    await example.stop();
  });

  /** A page in a separate browser, logged in by the form. The example has no script, so none may run. */
  async function logIn(options) {
    const context = await browser.newContext({ baseURL: example.url, javaScriptEnabled: false, ...options });
    const page = await context.newPage();
    await page.goto("/");
    await page.getByLabel("Email").fill(ADA.email);
    await page.getByLabel("Password").fill(ADA.password);
    await page.getByRole("button", { name: "Log in" }).click();
    await page.getByRole("heading", { name: "Ada Lovelace" }).waitFor();
    return page;
  }

  it("revokes the session of one browser from another", async () => {
    const laptop = await logIn({ userAgent: FIREFOX });
    const phone = await logIn({ userAgent: IPHONE, viewport: { width: 390, height: 844 } });
    await laptop.reload();
    assert.equal(await laptop.getByRole("listitem").count(), 2);
    const item = laptop.getByRole("listitem").filter({ hasText: "Safari on iPhone" });
    await item.getByRole("button", { name: "Revoke" }).click();
    await laptop.getByText("That session has ended.").waitFor();
    assert.equal(await laptop.getByRole("listitem").count(), 1);

    await phone.reload();
    await phone.getByRole("heading", { name: "Log in" }).waitFor();
    assert.deepEqual(await phone.context().cookies(), []);
  });

  it("shows a wrong password, with the email still in the form", async () => {
    const page = await (await browser.newContext({ javaScriptEnabled: false })).newPage();
    await page.goto(`${example.url}/login`);
    await page.getByLabel("Email").fill(ADA.email);
    await page.getByLabel("Password").fill("wrong");
    await page.getByRole("button", { name: "Log in" }).click();
    assert.equal(await page.getByRole("alert").textContent(), "Email or password is wrong.");
    assert.equal(await page.getByLabel("Email").inputValue(), ADA.email);
  });
});

describe("the example's server", () => {
  afterEach(killAll);

  it("keeps its visitors logged in when it is killed and started again", async () => {
    const dataDir = newFolder();
    const first = await start("login", dataDir);
    const client = await clientOf(first.url).login();
    await kill(first.child);

    const second = await start("login", dataDir);
    const again = clientOf(second.url);
    again.cookie = client.cookie;
    assert.equal(await again.isLoggedIn(), true);
    await again.post("/logout");
    await kill(second.child);

    const third = await start("login", dataDir);
    const late = clientOf(third.url);
    late.cookie = client.cookie;
    assert.equal(await late.isLoggedIn(), false);
    await kill(third.child);
  });

  function failToStart(settings) {
    const env = { ...process.env, PORT: "0", HOST: "127.0.0.1", ...settings };
    const { status, stderr } = spawnSync(process.execPath, [serverOf("login")], { env, encoding: "utf8" });
    assert.equal(status, 1);
    return stderr;
  }

  it("reports invalid settings in one line", () => {
    const dataDir = newFolder();
    fs.mkdirSync(dataDir);
    fs.writeFileSync(path.join(dataDir, "sessions"), "");
    const said = failToStart({ DATA_DIR: dataDir });
    assert.match(said, /^ERR_INVALID_OPTION: path must be the path of a folder; got .*sessions\n$/);
    const withShortSecret = failToStart({ DATA_DIR: newFolder(), SESSION_SECRET: "short" });
    assert.equal(withShortSecret, "SESSION_SECRET must have at least 32 characters.\n");
    const withoutPort = failToStart({ DATA_DIR: newFolder(), PORT: "http" });
    assert.equal(withoutPort, 'PORT must be a number from 0 to 65535, not "http".\n');
    const ofNoKind = failToStart({ DATA_DIR: newFolder(), STORE: "reddis" });
    assert.equal(ofNoKind, 'STORE must be file or redis, not "reddis".\n');
  });

  it("reports in one line that its port is taken", async () => {
    const { url } = await start("login", newFolder());
    const { port } = new URL(url);
    const said = failToStart({ DATA_DIR: newFolder(), PORT: port });
    assert.equal(said, `Port ${port} is taken. Choose another, for example PORT=${Number(port) + 1}.\n`);
  });
});

describe("npm start", () => {
  it("lists the examples for an unknown name", () => {
    const script = path.join(__dirname, "../scripts/start.js");
    const { status, stdout, stderr } = spawnSync(process.execPath, [script, "pasport"], { encoding: "utf8" });
    assert.deepEqual([status, stdout], [1, ""]);
    assert.match(stderr, /no example "pasport".* login \| passport \| fastify/);
  });
});
