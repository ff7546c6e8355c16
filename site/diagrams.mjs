// Renders Mermaid diagrams to SVG when the site is built, so the pages need no script.
import { renderMermaidSVG } from "beautiful-mermaid";

// CSS variables of the theme, so that a diagram is light or dark like the page.
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
  // Remove the font import, which would load from another server. The theme has the font.
  const svg = renderMermaidSVG(source, COLOURS).replace(/@import[^\n]*\n/, "");
  // Pass it as a value, because Vue removes style elements from templates.
  const value = JSON.stringify(svg).replaceAll("&", "&amp;").replaceAll('"', "&quot;");
  return `<div class="diagram" v-html="${value}"></div>\n`;
}
