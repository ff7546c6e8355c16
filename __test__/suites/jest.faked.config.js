module.exports = { ...require("./jest.config.js"), fakeTimers: { enableGlobally: true } };
