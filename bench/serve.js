"use strict";

/** Does what the parent process asks for, one thing at a time, and ends with it. */
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
