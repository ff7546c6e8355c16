module.exports = { testMatch: ["<rootDir>/jest/*.test.js"], watchman: false, testTimeout: 60_000 };
