"use strict";

// How `npm test` runs its steps.
const assert = require("node:assert/strict");
const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");
const { after, describe, it } = require("node:test");
const { runLanes } = require("../scripts/steps");

const step = (title, script) => ({ title, command: process.execPath, args: ["-e", script] });
const says = (title) => step(title, `console.log("${title} has run")`);

async function printed(lanes) {
  let text = "";
  const results = await runLanes(lanes, (more) => {
    text += more;
  });
  return { text, results: results.map(({ step, code }) => [step.title, code]) };
}

describe("lanes of steps", () => {
  const home = fs.mkdtempSync(path.join(os.tmpdir(), "native-store-steps-"));
  after(() => fs.rmSync(home, { recursive: true, force: true }));

  it("run their steps one after the other, and print one lane after the other", async () => {
    const { text, results } = await printed([
      [says("a"), says("b")],
      [says("c"), says("d")],
    ]);
    assert.deepEqual(
      results,
      ["a", "b", "c", "d"].map((title) => [title, 0]),
    );
    assert.equal(text, ["a", "b", "c", "d"].map((title) => `\n${title} ...\n${title} has run\n`).join(""));
  });

  it("run side by side", async () => {
    // Each ends only once the other has begun.
    const waits = (own, other) =>
      step(
        own,
        `const fs = require("node:fs");
        fs.writeFileSync("${own}", "");
        const timer = setInterval(() => fs.existsSync("${other}") && clearInterval(timer), 5);`,
      );
    const [one, other] = ["one", "other"].map((name) => path.join(home, name).replaceAll("\\", "/"));
    const { results } = await printed([[waits(one, other)], [waits(other, one)]]);
    assert.deepEqual(results, [
      [one, 0],
      [other, 0],
    ]);
  });

  it("stop at a step that fails, and let the other lanes end", async () => {
    const fails = step("fails", 'console.error("the reason"); process.exitCode = 3');
    const { text, results } = await printed([
      [says("a"), says("b")],
      [fails, says("never")],
    ]);
    assert.deepEqual(results, [
      ["a", 0],
      ["b", 0],
      ["fails", 3],
    ]);
    assert.match(text, /the reason/);
    assert.doesNotMatch(text, /never/);
  });

  it("reject if a command does not exist", async () => {
    const absent = { title: "absent", command: path.join(home, "no-such-program"), args: [] };
    await assert.rejects(printed([[absent]]), { code: "ENOENT" });
  });
});
