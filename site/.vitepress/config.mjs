import { fileURLToPath } from "node:url";
import { slug } from "github-slugger";
import { defineConfig } from "vitepress";
import { drawDiagrams } from "../diagrams.mjs";
import { EXCLUDED, manifest, pageOnSite, REPOSITORY, ROOT, rewriteLinks, sidebar } from "../pages.mjs";

const { description, version } = manifest();

/** Resolves Vue for the pages, which are outside of the folder that contains it. */
const vueForPages = {
  name: "vue-for-pages",
  enforce: "pre",
  resolveId(id, importer, options) {
    if (!/^vue(\/|$)/.test(id) || !importer?.endsWith(".md")) return undefined;
    return this.resolve(id, fileURLToPath(import.meta.url), { ...options, skipSelf: true });
  },
};

export default defineConfig({
  title: "native-store",
  description,
  lang: "en",
  srcDir: ROOT,
  srcExclude: EXCLUDED,
  // An empty icon, so that browsers do not request one.
  head: [["link", { rel: "icon", href: "data:," }]],
  outDir: "dist",
  rewrites: pageOnSite,
  markdown: {
    // Use GitHub's anchors, which links in the repository use, and no syntax that GitHub lacks.
    anchor: { slugify: slug },
    attrs: { disable: true },
    config(md) {
      rewriteLinks(md);
      drawDiagrams(md);
    },
  },
  vite: {
    plugins: [vueForPages],
    publicDir: false,
  },
  themeConfig: {
    nav: [
      { text: "Documentation", link: "/documentation" },
      { text: version, items: [{ text: "Changelog", link: "/changelog" }] },
    ],
    sidebar: sidebar(),
    outline: [2, 3],
    search: { provider: "local" },
    socialLinks: [{ icon: "github", link: REPOSITORY }],
  },
});
