// Bundles the app in a folder whose `node_modules` has the package. Each bundler writes `app.js` and its files to
// `out`.

const path = require("node:path");

const OWN_MODULES = path.join(__dirname, "node_modules");
const NAME = "@fluidauth/native-store";

async function esbuild(folder, out, options) {
  await require("esbuild").build({
    absWorkingDir: folder,
    entryPoints: ["app.js"],
    outdir: out,
    bundle: true,
    platform: "node",
    nodePaths: [OWN_MODULES],
    logLevel: "error",
    ...options,
  });
}

function webpack(folder, out, options) {
  const config = {
    mode: "production",
    target: "node",
    context: folder,
    entry: "./app.js",
    output: { path: out, filename: "app.js" },
    resolve: { modules: ["node_modules", OWN_MODULES] },
    resolveLoader: { modules: [OWN_MODULES] },
    optimization: { minimize: false },
    ...options,
  };
  return new Promise((resolve, reject) => {
    require("webpack")(config, (error, stats) => {
      if (error) return reject(error);
      if (stats.hasErrors()) return reject(new Error(stats.toString("errors-only")));
      resolve();
    });
  });
}

const nodeLoader = { rules: [{ test: /\.node$/, loader: "node-loader" }] };

/** `isExternal`: the package stays in `node_modules` next to the bundle. */
const BUNDLES = {
  "esbuild, with the addon copied": {
    build: (folder, out) => esbuild(folder, out, { loader: { ".node": "copy" } }),
  },
  "esbuild, with the package external": {
    isExternal: true,
    build: (folder, out) => esbuild(folder, out, { external: [NAME] }),
  },
  "webpack, with node-loader": {
    build: (folder, out) => webpack(folder, out, { module: nodeLoader }),
  },
  "webpack, with the package external": {
    isExternal: true,
    build: (folder, out) =>
      webpack(folder, out, {
        externals: [NAME, `${NAME}/connect`].map((name) => ({ [name]: `commonjs ${name}` })),
      }),
  },
};

module.exports = { BUNDLES };
