"use strict";

// The code on the pages for users: whole apps run, and fragments match the typings and the command line.

const assert = require("node:assert/strict");
const { once } = require("node:events");
const fs = require("node:fs");
const path = require("node:path");
const { after, describe, it } = require("node:test");
const { ROOT, pages, readPage } = require("../scripts/markdown.js");
const { makePlace } = require("./support/file-places.js");
const { blocksOf, faultsOf, placeOf, startApp } = require("./support/snippets.js");

const { next: newFolder } = makePlace();
const blocks = pages().flatMap((page) => blocksOf(page, readPage(page)));

describe("the code on the pages", () => {
  it("is valid", async () => {
    assert.deepEqual(await faultsOf(newFolder(), blocks), []);
  });

  for (const block of blocks.filter(({ language, isApp }) => isApp && /^[mc]?js$/.test(language))) {
    it(`runs: ${placeOf(block)}`, async () => {
      const { child, url } = await startApp(newFolder(), block);
      after(() => child.kill("SIGKILL"));
      const response = await fetch(url);
      assert.ok(response.status < 500, await response.text());
      const ended = once(child, "exit");
      child.kill("SIGTERM");
      await ended;
    });
  }
});

describe("the first app of a page", () => {
  for (const name of ["express", "fastify", "fluidauth"]) {
    it(`is examples/minimal/${name}.mjs`, () => {
      const { code } = blocks.find(({ page, isApp }) => page === `docs/${name}.md` && isApp);
      assert.equal(code, fs.readFileSync(path.join(ROOT, `examples/minimal/${name}.mjs`), "utf8"));
    });
  }
});

describe("the check of the code on the pages", () => {
  const page = (language, code) => blocksOf("page.md", `# Title\n\n\`\`\`${language}\n${code}\n\`\`\`\n`);
  const faults = async (language, code) => faultsOf(newFolder(), page(language, code));

  for (const [title, language, code, expected] of [
    ["wrong syntax", "js", "const store = new FileStore({ path );", /^page\.md:4: /],
    ["an option that there is not", "js", "new FileStore({ path, maxSession: 1 });", /'maxSession'/],
    ["a class that there is not", "js", "new FileSotre({ path });", /'FileSotre'/],
    ["an export that there is not", "js", 'import { Fluid } from "@fluidauth/native-store";', /'Fluid'/],
    ["the same with require", "js", 'const { Fluid } = require("@fluidauth/native-store");', /'Fluid'/],
    ["a method that there is not", "js", 'await store.destroyAll("ada");', /'destroyAll'/],
    ["a wrong type", "ts", 'const port: number = "3000";', /'string' is not assignable/],
    ["a signature of no method", "ts", "size(): Promise<string>;", /nothing has these members/],
    ["wrong syntax of a shell", "sh", "echo $(ls", /page\.md:4: /],
    ["a command that there is not", "sh", "npx native-store lst", /lst.*no such command/],
    ["a command's option that there is not", "sh", "npx native-store list --usr 1", /no option --usr/],
  ]) {
    it(`finds ${title}`, async () => {
      const found = await faults(language, code);
      assert.equal(found.length, 1, found.join("\n"));
      assert.match(found[0], expected);
    });
  }

  it("lets a fragment use the variables of its app", async () => {
    const code = 'app.get("/", async (req, res) => res.json(await store.getByUser(req.session.userId)));';
    assert.deepEqual(await faults("js", code), []);
  });

  it("reports why an app does not start", async () => {
    const [block] = page("js", 'import "express";\nthrow new Error("not today");\napp.listen(0);');
    assert.equal(block.isApp, true);
    await assert.rejects(startApp(newFolder(), block), /the app ended with 1: [\s\S]*not today/);
  });
});
