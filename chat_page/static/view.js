// SPDX-License-Identifier: Apache-2.0
// The page as a function of the state (app.js) and of what a visitor can do (`act`).

import { openCalls } from "./api.js";
import { repeat } from "./vendor/lit-html/directives/repeat.js";
import { html, nothing } from "./vendor/lit-html/lit-html.js";

const EXAMPLES = ["What is gravity?", "Write a short poem about the sea.", "Write a Python function that tests for primes."];

// What `modalities` of /v1/models means.
const READS = { text: "text", image: "pictures", video: "videos" };

const ICONS = {
  attach: "M8 12.5l6-6a3 3 0 0 1 4.2 4.2l-8 8a5 5 0 0 1-7-7l8-8",
  bin: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13",
  close: "M6 6l12 12M18 6L6 18",
  down: "M12 5v14M6 13l6 6 6-6",
  menu: "M4 7h16M4 12h16M4 17h16",
  pen: "M4 20l1-5L16 4l4 4L9 19z",
  plus: "M12 5v14M5 12h14",
  send: "M12 20V5M6 11l6-6 6 6",
  settings: "M4 8h9M17 8h3M4 16h3M11 16h9M13 6v4M7 14v4",
  stop: "M7 7h10v10H7z",
};
const icon = name => html`<svg viewBox="0 0 24 24" aria-hidden="true"><path d=${ICONS[name]}></path></svg>`;

const button = (label, name, onClick, more = "") =>
  html`<button type="button" class="icon ${more}" aria-label=${label} title=${label} @click=${onClick}>${icon(name)}</button>`;

export function page(state, act) {
  return html`
    <div class="app ${state.sidebar ? "with-sidebar" : ""}">
      ${sidebar(state, act)}
      <div class="shade" @click=${act.toggleSidebar}></div>
      <div class="column" ?inert=${state.drawer}>
        ${header(state, act)} ${conversation(state, act)} ${composer(state, act)}
      </div>
    </div>
    ${settings(state, act)}
    <div class="drop" ?hidden=${!state.dragging}><p>Drop pictures or videos anywhere</p></div>
    <p class="unseen" role="status">${state.status}</p>`;
}

function header(state, act) {
  const models = state.models;
  return html`
    <header>
      ${button(state.sidebar ? "Hide the chats" : "Show the chats", "menu", act.toggleSidebar, "chats-toggle")}
      <h1>${state.chat.title || "Triton Chat"}</h1>
      <select aria-label="Model" id="model" ?disabled=${!models.length} @change=${act.chooseModel}>
        ${models.length ? nothing : html`<option>no model yet</option>`}
        ${models.map(one => html`<option value=${one.id} .selected=${one.id === state.model?.id}>${one.id}</option>`)}
      </select>
      ${button("New chat", "plus", act.newChat, "new-chat")} ${button("Settings", "settings", act.openSettings, "settings-button")}
      ${state.serverError
      ? html`<div class="banner" role="alert">
          <span>${state.serverError}</span>
          ${state.keyMissing ? html`<button type="button" @click=${act.openSettings}>Enter a key</button>` : html`<span>Trying again…</span>`}
        </div>`
      : nothing}
    </header>`;
}

function sidebar(state, act) {
  const wanted = state.search.trim().toLowerCase();
  const texts = chat => [chat.title, ...chat.messages.map(one => one.text)];
  const found = state.chats.filter(chat => !wanted || texts(chat).some(text => text.toLowerCase().includes(wanted)));
  return html`
    <aside aria-label="Chats">
      <div class="side-top">
        <button type="button" class="wide" @click=${act.newChat}>${icon("plus")} New chat</button>
        <input type="search" aria-label="Search the chats" placeholder="Search" .value=${state.search} @input=${act.search}>
      </div>
      <nav aria-label="Kept chats">
        <ul>
          ${repeat(found, chat => chat.id, chat => html`
            <li class=${chat.id === state.chat.id ? "current" : ""}>
              <a href="#${chat.id}" aria-current=${chat.id === state.chat.id ? "page" : "false"}>
                ${state.running.has(chat.id) ? html`<span class="dot" title="Answering"></span>` : nothing}${chat.title}</a>
              ${button(`Rename ${chat.title}`, "pen", () => act.rename(chat))}
              ${button(`Delete ${chat.title}`, "bin", () => act.deleteChat(chat))}
            </li>`)}
        </ul>
        ${found.length ? nothing : html`<p class="hint">${wanted ? "No chat has these words." : "Chats are kept in this browser."}</p>`}
      </nav>
      <div class="side-bottom">
        <button type="button" @click=${act.exportChats} ?disabled=${!state.chats.length}>Export</button>
        <button type="button" @click=${act.importChats}>Import</button>
      </div>
    </aside>`;
}

function conversation(state, act) {
  const { messages } = state.chat;
  return html`
    <main id="scroller" @scroll=${act.scrolled} @click=${act.clicked}>
      <div id="messages">
        ${messages.length ? nothing : emptyState(state, act)}
        ${repeat(messages, one => one.id, (one, index) => message(one, index === messages.length - 1, state, act))}
      </div>
    </main>`;
}

function emptyState(state, act) {
  const sees = state.modalities.includes("image");
  return html`
    <div class="empty">
      <h2>${state.model ? `Ask ${state.model.id}` : "Hello"}</h2>
      ${state.model?.modalities
        ? html`<p>It reads ${new Intl.ListFormat("en").format(state.modalities.map(one => READS[one] ?? one))}.</p>`
        : nothing}
      <ul>
        ${EXAMPLES.map(text => html`<li><button type="button" @click=${() => act.ask(text)}>${text}</button></li>`)}
        ${sees ? html`<li><button type="button" @click=${() => act.attach("What is in this picture?")}>What is in this picture? …</button></li>` : nothing}
      </ul>
    </div>`;
}

function message(one, last, state, act) {
  const busy = state.running.has(state.chat.id);
  if (one.role === "user") return userMessage(one, busy, last, state, act);
  if (one.role === "tool") {
    return html`<article class="assistant" aria-label="Result of a tool">
      <details open><summary>Result of ${one.call.name}</summary>${jsonBlock(one.text)}</details>
    </article>`;
  }
  const growing = state.running.get(state.chat.id)?.message === one;
  const thinking = growing && !one.text && !one.calls.length;
  return html`
    <article class="assistant" aria-label="Answer" aria-busy=${growing}>
      ${one.reasoning
        ? html`<details class="reasoning" ?open=${thinking}>
            <summary>${thinking ? "Thinking…" : "Thought for"} ${seconds(one.reasoningSeconds)}</summary>
            <markdown-text .text=${one.reasoning}></markdown-text>
          </details>`
        : nothing}
      ${growing && !one.text && !one.reasoning && !one.calls.length ? html`<p class="waiting">Waiting for the first word…</p>` : nothing}
      <markdown-text class="answer" .text=${one.text}></markdown-text>
      ${one.calls.map(call => html`<details open><summary>Tool call: ${call.name}</summary>${jsonBlock(indented(call.arguments))}</details>`)}
      ${one.note ? html`<p class="note">${one.note}</p>` : nothing}
      ${one.error
        ? html`<div class="error" role="alert">
            <span>${one.error}</span>
            ${one.status === 401 ? html`<button type="button" @click=${act.openSettings}>Enter a key</button>` : nothing}
            ${last && !busy ? html`<button type="button" @click=${act.regenerate}>Retry</button>` : nothing}
          </div>`
        : nothing}
      ${growing
        ? nothing
        : html`<footer>
            ${one.text ? html`<button type="button" @click=${event => act.copy(event, one.text)}>Copy</button>` : nothing}
            ${last && !busy && !one.error ? html`<button type="button" @click=${act.regenerate}>Regenerate</button>` : nothing}
            ${last && !busy ? html`<button type="button" @click=${act.undo}>Undo</button>` : nothing}
            <span class="figures">${figures(one, state.models.length > 1)}</span>
          </footer>`}
    </article>`;
}

function userMessage(one, busy, last, state, act) {
  if (state.editing === one.id) {
    return html`
      <article class="user" aria-label="Your message">
        <form class="edit" @submit=${event => act.saveEdit(event, one)}>
          <textarea aria-label="New text" name="text" .value=${one.text}></textarea>
          <div><button type="button" @click=${act.cancelEdit}>Cancel</button> <button class="primary">Send</button></div>
        </form>
      </article>`;
  }
  return html`
    <article class="user" aria-label="Your message">
      ${one.files?.length ? html`<div class="files">${one.files.map(file => media(file, state.files.get(file.id)))}</div>` : nothing}
      ${one.text ? html`<p class="bubble">${one.text}</p>` : nothing}
      <footer>
        <button type="button" @click=${event => act.copy(event, one.text)}>Copy</button>
        <button type="button" ?disabled=${busy} @click=${() => act.edit(one)}>Edit</button>
        ${last ? html`<button type="button" @click=${act.regenerate}>Send again</button>` : nothing}
      </footer>
    </article>`;
}

function media(file, url) {
  if (!url) return html`<p class="hint">${file.name}</p>`;
  if (file.type.startsWith("video/")) return html`<video controls src=${url} aria-label=${file.name}></video>`;
  return html`<img src=${url} alt=${file.name}>`;
}

function composer(state, act) {
  const busy = state.running.has(state.chat.id);
  const [call] = busy ? [] : openCalls(state.chat.messages);
  const label = call ? `The result of ${call.name}` : "Message";
  const canAttach = state.modalities.some(one => one !== "text");
  const attachLabel = canAttach ? "Attach pictures or videos" : "This model reads text only";
  return html`
    <form id="composer" aria-label="Ask" @submit=${act.submit}>
      <div class="jump" ?hidden=${state.atEnd}>${button("Go to the end", "down", act.jump)}</div>
      ${state.notice ? html`<p class="notice" role="alert">${state.notice}</p>` : nothing}
      <div class="box">
        ${state.attached.length
          ? html`<ul class="attached" aria-label="Attached">
              ${repeat(state.attached, file => file.id, file => html`<li>
                ${media(file, state.files.get(file.id))}${button(`Remove ${file.name}`, "close", () => act.detach(file))}
              </li>`)}
            </ul>`
          : nothing}
        <textarea id="question" rows="2" aria-label=${label} placeholder=${label} @input=${act.typed} @keydown=${act.keydown} @paste=${act.paste}></textarea>
        <div class="tools">
          <button type="button" class="icon attach" aria-label=${attachLabel} title=${attachLabel} ?disabled=${!canAttach} @click=${() => act.attach()}>
            ${icon("attach")}</button>
          <span class="hint">${busy ? "Esc stops the answer" : "Enter sends, Shift+Enter begins a line"}</span>
          ${busy
            ? html`<button type="button" class="icon primary stop" aria-label="Stop" title="Stop (Esc)" @click=${act.stop}>${icon("stop")}</button>`
            : html`<button class="icon primary send" aria-label="Send" title="Send">${icon("send")}</button>`}
        </div>
      </div>
      <input type="file" id="files" aria-label="Files" multiple hidden accept=${accepted(state.modalities)} @change=${act.filesChosen}>
      <input type="file" id="import" aria-label="Export to read" hidden accept=".json,application/json" @change=${act.importChosen}>
    </form>`;
}

const accepted = modalities =>
  [...(modalities.includes("image") ? ["image/*"] : []), ...(modalities.includes("video") ? ["video/*", ".mkv"] : [])].join(",");

function settings(state, act) {
  const { values } = state;
  const field = (name, label, input) => html`<label for=${name}>${label}</label>${input}`;
  const number = (name, label, more) => field(name, label, html`
    <input type="number" id=${name} name=${name} placeholder="the server's default" .value=${values[name]} step=${more.step} min=${more.min}>`);
  const choice = (name, label, options) => field(name, label, html`
    <select id=${name} name=${name}>
      ${Object.entries(options).map(([value, text]) => html`<option value=${value} .selected=${values[name] === value}>${text}</option>`)}
    </select>`);
  return html`
    <dialog id="settings" aria-labelledby="settings-title" @close=${act.settingsClosed}>
      <form method="dialog" @input=${act.settingChanged} @submit=${act.settingsDone}>
        <div class="dialog-top"><h2 id="settings-title">Settings</h2>${button("Close", "close", act.closeSettings)}</div>
        ${state.asksKey
          ? html`<section>
              ${field("key", "API key", html`<input type="password" id="key" name="key" autocomplete="off" .value=${values.key}>`)}
              ${state.keyMissing ? html`<p class="wrong" role="alert">The server requires a valid API key.</p>` : nothing}
              <label class="check"><input type="checkbox" name="keepKey" .checked=${values.keepKey}> Keep the key in this browser, not only in this tab</label>
            </section>`
          : nothing}
        <section>
          ${field("system", "System prompt", html`<textarea id="system" name="system" rows="3" .value=${values.system}></textarea>`)}
          <div class="pair">
            <div>${number("temperature", "Temperature", { step: "any", min: 0 })}</div>
            <div>${number("top_p", "Top p", { step: "any", min: 0 })}</div>
            <div>${number("max_tokens", "Maximum tokens of an answer", { step: 1, min: 1 })}</div>
            <div>${number("seed", "Seed", { step: 1 })}</div>
          </div>
          ${choice("thinking", "Reasoning", { default: "the model's default", on: "on", off: "off" })}
          ${field("tools", "Tools, a JSON list of functions", html`<textarea id="tools" name="tools" rows="4" spellcheck="false" .value=${values.tools}></textarea>`)}
          ${state.toolsError ? html`<p class="wrong" role="alert">${state.toolsError}</p>` : nothing}
        </section>
        <section>
          ${choice("theme", "Colours", { auto: "those of the system", light: "light", dark: "dark" })}
          <p class="hint">Settings and chats are kept in this browser. ${state.server ? `They are sent to nobody but ${state.server}.` : ""}</p>
        </section>
        <div class="dialog-bottom">
          <button type="button" @click=${act.deleteAll} ?disabled=${!state.chats.length}>Delete all chats</button>
          <button class="primary">Done</button>
        </div>
      </form>
    </dialog>`;
}

const seconds = value => (value === undefined ? "" : value < 0.1 ? "under 0.1 s" : value < 10 ? `${value.toFixed(1)} s` : `${Math.round(value)} s`);

/** What an answer cost, as far as it is known. */
function figures(one, several) {
  const parts = [];
  if (several && one.model) parts.push(one.model);
  if (one.tokens !== undefined) parts.push(`${one.tokens} ${one.tokens === 1 ? "token" : "tokens"}`);
  // The first token's time is that of the prompt.
  if (one.tokens > 1 && one.seconds > one.ttft + 0.01) parts.push(`${((one.tokens - 1) / (one.seconds - one.ttft)).toFixed(1)} tokens/s`);
  if (one.ttft !== undefined) parts.push(`first after ${one.ttft.toFixed(2)} s`);
  if (one.promptTokens !== undefined) parts.push(`prompt ${one.promptTokens} tokens`);
  return parts.join(" · ");
}

function indented(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // Incomplete, while the answer grows.
    return text;
  }
}

const jsonBlock = text => html`<pre class="plain" tabindex="0"><code>${text}</code></pre>`;
