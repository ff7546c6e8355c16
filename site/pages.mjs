// Maps Markdown files to pages of the site, and rewrites their links.
import fs from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const ROOT = fileURLToPath(new URL("..", import.meta.url));

export const REPOSITORY = manifest().repository.url.replace(/^git\+|\.git$/g, "");

/** Patterns for all Markdown that is not a page. Pages are README, the changelog and docs/. */
export const EXCLUDED = ["!(docs)/**/*", "!(README|CHANGELOG).md", "docs/*/**"];

export function manifest() {
  return JSON.parse(fs.readFileSync(new URL("../package.json", import.meta.url), "utf8"));
}

/** Returns the path of a page on the site. Neither path has a leading slash. */
export function pageOnSite(file) {
  if (file === "README.md") return "index.md";
  if (file === "docs/README.md") return "documentation.md";
  if (file === "CHANGELOG.md") return "changelog.md";
  return file.replace(/^docs\//, "");
}

export const isPage = (file) => /^(README|CHANGELOG|docs\/[^/]+)\.md$/.test(file);

/**
 * Converts the link of a page for the site. Files that are not on the site get a link to GitHub. A link to a missing
 * file is unchanged, which fails the build.
 */
export function linkOnSite(page, link) {
  if (link.startsWith("#") || /^[a-z][a-z+.-]*:/i.test(link)) return link;
  const [target, anchor] = link.split("#");
  const file = path.posix.join(path.posix.dirname(page), decodeURIComponent(target)).replace(/\/$/, "");
  const suffix = anchor === undefined ? "" : `#${anchor}`;
  if (isPage(file)) return `/${pageOnSite(file)}${suffix}`;
  const found = fs.statSync(path.join(ROOT, file), { throwIfNoEntry: false });
  if (!found) return link;
  return `${REPOSITORY}/${found.isDirectory() ? "tree" : "blob"}/HEAD/${file}${suffix}`;
}

/** A plugin for markdown-it: rewrites all links of a page. */
export function rewriteLinks(md) {
  md.core.ruler.push("links-on-site", ({ tokens, env }) => {
    const page = path.relative(ROOT, env.realPath ?? env.path).replaceAll(path.sep, "/");
    for (const token of tokens.flatMap(({ children }) => children ?? [])) {
      if (token.type === "link_open") token.attrSet("href", linkOnSite(page, token.attrGet("href")));
    }
  });
}

/**
 * Builds the sidebar from the table in docs/README.md: a row in bold starts a group, other rows have links to pages.
 */
export function sidebar(index = fs.readFileSync(path.join(ROOT, "docs/README.md"), "utf8")) {
  const groups = [
    {
      items: [
        { text: "Start", link: "/" },
        { text: "All pages", link: "/documentation" },
      ],
    },
  ];
  for (const [, cell] of index.matchAll(/^\|([^|]*)\|/gm)) {
    const [, title] = /^\s*\*\*(.+)\*\*\s*$/.exec(cell) ?? [];
    if (title) groups.push({ text: title, items: [] });
    for (const [, text, file] of cell.matchAll(/\[([^\]]+)\]\(([^)#]+)\.md\)/g)) {
      groups.at(-1).items.push({ text: capitalized(text.replaceAll("`", "")), link: `/${file}` });
    }
  }
  return groups;
}

const capitalized = (text) => text[0].toUpperCase() + text.slice(1);
