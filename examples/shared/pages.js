"use strict";

const { LONGEST_NAME } = require("./device");
const { html } = require("./html");
const { timeElement } = require("./time");

const NOTICES = {
  "logged-out": "You are logged out.",
  "everywhere-ended": "You are logged out everywhere.",
  "session-ended": "That session has ended.",
  "others-ended": "Every other session has ended.",
  renamed: "This device has a new name.",
};

// Shows only fixed texts, never the text of a link.
const notice = (key) =>
  Object.hasOwn(NOTICES, key) && html`<p class="notice" role="status">${NOTICES[key]}</p>`;

function layout(title, content, width = "wide") {
  return html`<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>${title}</title>
  <link rel="icon" href="data:,">
  <link rel="stylesheet" href="/style.css">
</head>
<body>
  <main class="${width}">${content}</main>
</body>
</html>
`;
}

function demoHint(logins) {
  return html`<aside>
    <h2>Accounts to try</h2>
    <dl>${logins.map(({ email, password }) => html`<dt>${email}</dt><dd>${password}</dd>`)}</dl>
  </aside>`;
}

const rememberBox = (isChecked) => html`
      <label class="choice"><input name="remember" type="checkbox" ${isChecked && "checked"}> Keep me logged in</label>`;

function loginPage({ email = "", error, noticeKey, demoLogins = [], remember }) {
  return layout(
    "Log in",
    html`
    <h1>Log in</h1>
    ${notice(noticeKey)}
    ${error && html`<p class="error" role="alert" id="error">${error}</p>`}
    <form method="post" action="/login" class="card">
      <label for="email">Email</label>
      <input id="email" name="email" type="email" value="${email}" autocomplete="username" required
        ${!email && "autofocus"}>
      <label for="password">Password</label>
      <input id="password" name="password" type="password" autocomplete="current-password" required
        ${email && html`autofocus`} ${error && html`aria-invalid="true" aria-describedby="error"`}>
      ${remember !== undefined && rememberBox(remember)}
      <button class="primary">Log in</button>
    </form>
    ${demoLogins.length > 0 && demoHint(demoLogins)}`,
    "narrow",
  );
}

function sessionItem({ handle, device, since, expires, isCurrent }) {
  return html`
    <li class="card">
      <div>
        <h3 id="device-${handle}">${device} ${isCurrent && html`<span class="badge">This one</span>`}</h3>
        <p>Logged in ${timeElement(since)}</p>
        <p>Ends ${timeElement(expires)}</p>
      </div>
      <form method="post" action="/sessions/revoke">
        <button name="session" value="${handle}" aria-describedby="device-${handle}">Revoke</button>
      </form>
    </li>`;
}

const actionForm = (action, label, className) =>
  html`<form method="post" action="${action}"><button class="${className}">${label}</button></form>`;

const renameForm = ({ device }) => html`
    <section aria-labelledby="this-device">
      <h2 id="this-device">This device</h2>
      <form method="post" action="/device">
        <label for="device">Name</label>
        <div class="actions">
          <input id="device" name="device" value="${device}" maxlength="${LONGEST_NAME}" required>
          <button>Rename</button>
        </div>
      </form>
    </section>`;

function accountPage({ user, sessions, noticeKey, canRename = false }) {
  const current = sessions.find((session) => session.isCurrent);
  return layout(
    "Your account",
    html`
    <header>
      <div>
        <h1>${user.name}</h1>
        <p>${user.email}</p>
        ${current && html`<p>This session ends ${timeElement(current.expires)}.</p>`}
      </div>
      ${actionForm("/logout", "Log out", "primary")}
    </header>
    ${notice(noticeKey)}
    <section aria-labelledby="sessions">
      <h2 id="sessions">Your sessions</h2>
      <p>Every browser in which you are logged in. Revoke what you do not recognise.</p>
      <ul>${sessions.map(sessionItem)}</ul>
      <div class="actions">
        ${sessions.length > 1 && actionForm("/sessions/revoke-others", "Log out everywhere else", "")}
        ${actionForm("/sessions/revoke-all", "Log out everywhere", "danger")}
      </div>
    </section>
    ${canRename && current && renameForm(current)}`,
  );
}

function messagePage(title, text) {
  return layout(title, html`<h1>${title}</h1><p>${text}</p><p><a href="/">Back to the start</a></p>`);
}

const refusedPage = () => messagePage("Refused", "This form was sent from another site.");

const notFoundPage = () => messagePage("Page not found", "There is nothing at this address.");

const errorPage = (status) =>
  status === 500
    ? messagePage("Something went wrong", "The fault is ours. Please try again later.")
    : messagePage("Bad request", "The server did not understand this request.");

module.exports = { accountPage, errorPage, loginPage, notFoundPage, refusedPage };
