// Mermaid diagrams as SVG, drawn when the site is built: the pages need no script for them.
import { renderMermaidSVG } from "beautiful-mermaid";

// Variables of the theme, so that a diagram is light or dark like the page.
const COLOURS = {
  bg: "var(--vp-c-bg)",
  fg: "var(--vp-c-text-1)",
  muted: "var(--vp-c-text-2)",
  transparent: true,
};

/** A plugin for markdown-it: draws code blocks in the language `mermaid`. */
export function drawDiagrams(md) {
  const drawCode = md.renderer.rules.fence;
  md.renderer.rules.fence = (tokens, index, ...others) => {
    const { info, content } = tokens[index];
    return info.trim() === "mermaid" ? draw(content) : drawCode(tokens, index, ...others);
  };
}

function draw(source) {
  // The theme has the font, which would come from another server.
  const svg = renderMermaidSVG(source, COLOURS).replace(/@import[^\n]*\n/, "");
  // As a value, since Vue takes style elements out of templates.
  const value = JSON.stringify(svg).replaceAll("&", "&amp;").replaceAll('"', "&quot;");
  return `<div class="diagram" v-html="${value}"></div>\n`;
}
