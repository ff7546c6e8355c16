"use strict";

const { mkdirSync, writeFileSync } = require("node:fs");
const path = require("node:path");
const { installPeers } = require("../install.js");
const parts = require("../parts.js");
const { CONFIG, GREY } = require("./style.js");

/** Fails early, before anything is measured, if the charts could not be drawn. */
function installCharts(progress) {
  const trials = { "vega-lite": 'Promise.all([import("vega"), import("vega-lite")])' };
  const missing = installPeers(__dirname, trials, progress);
  if (missing["vega-lite"]) throw new Error(`--charts needs vega-lite: ${missing["vega-lite"]}`);
}

async function toSvg({ title, subtitle, ...chart }) {
  const [vega, vegaLite] = await Promise.all([import("vega"), import("vega-lite")]);
  const heading = { text: title, subtitle, subtitleColor: GREY, anchor: "start", frame: "bounds" };
  const { spec } = vegaLite.compile({ ...chart, title: heading, config: CONFIG });
  const view = new vega.View(vega.parse(spec), { renderer: "none" });
  const svg = await view.toSVG();
  view.finalize();
  return `${svg}\n`;
}

/** Writes the charts of the measured parts. Other charts in the directory are kept. */
async function draw(measured, directory) {
  mkdirSync(directory, { recursive: true });
  for (const [name, ofPart] of Object.entries(measured)) {
    for (const { file, ...chart } of parts[name].charts?.(ofPart) ?? []) {
      writeFileSync(path.join(directory, file), await toSvg(chart));
    }
  }
}

module.exports = { draw, installCharts };
