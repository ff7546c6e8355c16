"use strict";

// The first match wins: Edge and Opera also call themselves Chrome, and Chrome calls itself Safari.
const BROWSERS = [
  [/Edg(e|A|iOS)?\//, "Edge"],
  [/OPR\//, "Opera"],
  [/Firefox\/|FxiOS\//, "Firefox"],
  [/Chrome\/|CriOS\//, "Chrome"],
  [/Safari\//, "Safari"],
];

const SYSTEMS = [
  [/iPhone/, "iPhone"],
  [/iPad/, "iPad"],
  [/Android/, "Android"],
  [/Windows/, "Windows"],
  [/Mac OS X/, "macOS"],
  [/CrOS/, "ChromeOS"],
  [/Linux/, "Linux"],
];

const LONGEST_NAME = 80;

const firstMatch = (table, text) => table.find(([pattern]) => pattern.test(text))?.[1];

/** Returns a readable name, such as "Firefox on Linux", or for other clients the start of their user agent. */
function deviceName(userAgent = "") {
  const browser = firstMatch(BROWSERS, userAgent);
  const system = firstMatch(SYSTEMS, userAgent);
  if (browser && system) return `${browser} on ${system}`;
  return browser ?? (userAgent.trim().slice(0, LONGEST_NAME) || "Unknown device");
}

module.exports = { LONGEST_NAME, deviceName };
