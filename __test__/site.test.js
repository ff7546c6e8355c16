"use strict";

// The site that `npm run docs` builds from README, the changelog and docs/.
const assert = require("node:assert/strict");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { after, before, describe, it } = require("node:test");
const { installGenerator, vitepress } = require("../scripts/docs.js");
const { pages } = require("../scripts/markdown.js");

const all = (text, pattern) => [...text.matchAll(pattern)].map(([, found]) => found);

describe("the site", () => {
  const out = fs.mkdtempSync(path.join(os.tmpdir(), "native-store-site-"));
  after(() => fs.rmSync(out, { recursive: true, force: true }));

  const html = new Map();
  let site;
  let onSite;
  before(async () => {
    site = await import("../site/pages.mjs");
    onSite = pages().filter(site.isPage);
    installGenerator();
    const { status, stdout, stderr } = vitepress(["build", ".", "--outDir", out], { encoding: "utf8" });
    assert.equal(status, 0, `${stdout}\n${stderr}`);
    for (const name of fs.readdirSync(out).filter((file) => file.endsWith(".html")))
      html.set(name, fs.readFileSync(path.join(out, name), "utf8"));
  });

  it("has a page for README, the changelog and each file of docs/", () => {
    const expected = onSite.map((page) => site.pageOnSite(page).replace(/\.md$/, ".html"));
    assert.deepEqual([...html.keys()].sort(), ["404.html", ...expected].sort());
  });

  it("has each page in its sidebar", () => {
    const listed = site.sidebar().flatMap(({ items }) => items.map(({ link }) => link));
    const inSidebar = onSite.filter((page) => page !== "CHANGELOG.md");
    const expected = inSidebar.map((page) => `/${site.pageOnSite(page).replace(/(^index)?\.md$/, "")}`);
    assert.deepEqual(
      expected.filter((page) => !listed.includes(page)),
      [],
    );
    assert.equal(new Set(listed).size, listed.length);
  });

  it("builds a sidebar from the table in docs/README.md", () => {
    const table =
      "| **Set up** | |\n| [`A`](a.md), [b](b.md) | a page |\n| **Operate** | |\n| [C](c.md) | [d](d.md) |\n";
    assert.deepEqual(site.sidebar(table).slice(1), [
      {
        text: "Set up",
        items: [
          { text: "A", link: "/a" },
          { text: "B", link: "/b" },
        ],
      },
      { text: "Operate", items: [{ text: "C", link: "/c" }] },
    ]);
  });

  it("has the anchors of its links", () => {
    const ids = new Map([...html].map(([name, text]) => [name, new Set(all(text, /\sid="([^"]+)"/g))]));
    const faults = [];
    let checked = 0;
    for (const [name, text] of html) {
      for (const link of all(text, /\shref="((?:\/[\w-]+\.html)?#[^"]+)"/g)) {
        const [page, anchor] = link.split("#").map(decodeURIComponent);
        checked += 1;
        if (!ids.get(page.slice(1) || name)?.has(anchor)) faults.push(`${name}: ${link}`);
      }
    }
    assert.deepEqual(faults, []);
    assert.ok(checked > 100);
  });

  it("links to GitHub for files that are not on it", () => {
    const github = "https://github.com/fluidauth/native-store";
    for (const [page, link, expected] of [
      ["docs/errors.md", "cli.md#verify", "/cli.md#verify"],
      ["docs/errors.md", "../README.md", "/index.md"],
      ["docs/errors.md", "../CHANGELOG.md", "/changelog.md"],
      ["README.md", "docs/", `${github}/tree/HEAD/docs`],
      ["README.md", "docs/README.md", "/documentation.md"],
      ["docs/errors.md", "../lib/errors.js#L1", `${github}/blob/HEAD/lib/errors.js#L1`],
      ["docs/operating.md", "grafana.json", `${github}/blob/HEAD/docs/grafana.json`],
      ["docs/errors.md", "#outcome", "#outcome"],
      ["docs/errors.md", "https://nodejs.org/", "https://nodejs.org/"],
      // These stay broken, so that the build fails.
      ["docs/errors.md", "no-such-page.md", "/no-such-page.md"],
      ["docs/errors.md", "../no-such-file", "../no-such-file"],
    ]) {
      assert.equal(site.linkOnSite(page, link), expected);
    }
  });

  it("draws diagrams", () => {
    const drawn = onSite.filter((page) =>
      fs.readFileSync(path.join(site.ROOT, page), "utf8").includes("```mermaid"),
    );
    assert.ok(drawn.length > 0);
    for (const page of drawn)
      assert.match(html.get(site.pageOnSite(page).replace(/\.md$/, ".html")), /<div class="diagram"><svg /);
    for (const text of html.values()) assert.doesNotMatch(text, /language-mermaid/);
  });

  it("can be searched", () => {
    const chunks = path.join(out, "assets/chunks");
    const [index] = fs.readdirSync(chunks).filter((file) => file.startsWith("@localSearchIndex"));
    assert.match(fs.readFileSync(path.join(chunks, index), "utf8"), /maxsessionsperuser/);
  });

  it("needs no other server", () => {
    for (const [name, text] of html)
      assert.doesNotMatch(text, /<(?:script|link)\b[^>]*(?:src|href)="(?:https?:)?\/\//, name);
    const styles = fs.readdirSync(out, { recursive: true }).filter((file) => file.endsWith(".css"));
    assert.ok(styles.length > 0);
    for (const name of styles)
      assert.doesNotMatch(
        fs.readFileSync(path.join(out, name), "utf8"),
        /(?:url\(|@import)\s*["']?(?:https?:)?\/\//,
        name,
      );
    for (const text of html.values()) assert.doesNotMatch(text, /fonts\.googleapis/);
  });
});
