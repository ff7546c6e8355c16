// pm2 start ecosystem.config.cjs, then: pm2 save
module.exports = {
  apps: [
    {
      name: "myapp",
      script: "express.mjs",
      cwd: "/opt/myapp/current",
      // Several processes share one store folder. A single process writes faster, because only then the redo log is
      // used.
      exec_mode: "cluster",
      instances: 2,
      env: {
        NODE_ENV: "production",
        PORT: "3000",
        NATIVE_STORE_PATH: "/var/lib/myapp/sessions", // the same for all processes, and outside of the release
        SESSION_SECRET: process.env.SESSION_SECRET,
      },
      // After SIGINT the app finishes its requests and closes the store. SIGKILL comes after this time.
      kill_timeout: 30_000,
    },
  ],
};
