"use strict";

const { html } = require("./html");

const CLOCK = { hour: "2-digit", minute: "2-digit", timeZoneName: "short" };
const clock = new Intl.DateTimeFormat("en-GB", CLOCK);
const clockAndDay = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", ...CLOCK });
const relative = new Intl.RelativeTimeFormat("en");

function distance(date) {
  const minutes = Math.round((date - Date.now()) / 60_000);
  if (minutes === 0) return "just now";
  if (Math.abs(minutes) < 90) return relative.format(minutes, "minute");
  const hours = Math.round(minutes / 60);
  if (Math.abs(hours) < 48) return relative.format(hours, "hour");
  return relative.format(Math.round(hours / 24), "day");
}

function exact(date) {
  const isToday = date.toDateString() === new Date().toDateString();
  return (isToday ? clock : clockAndDay).format(date);
}

/** Formats "in 29 minutes (09:24 UTC)". The absolute time stays right on a page that is left open. */
function timeElement(text) {
  const date = new Date(text);
  return html`<time datetime="${date.toISOString()}">${distance(date)} (${exact(date)})</time>`;
}

module.exports = { timeElement };
