"use strict";

/** Runs tasks that the parent process requests, one at a time, and ends with the parent. */
function serve(tasks) {
  process.on("message", async ({ task, args }) => {
    try {
      process.send({ result: await tasks[task](args) });
    } catch (error) {
      process.send({ error: error.stack });
    }
  });
  process.on("disconnect", () => process.exit());
}

module.exports = { serve };
