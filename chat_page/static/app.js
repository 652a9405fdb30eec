// SPDX-License-Identifier: Apache-2.0
// The page's state, what a visitor can do, and what changes by itself.

import { addChunk, listModels, openCalls, pageSettings, readTools, requestBody, streamChat } from "./api.js";
import * as history from "./history.js";
import { copy } from "./markdown.js";
import { render } from "./vendor/lit-html/lit-html.js";
import { page } from "./view.js";

const RETRY_MS = 2000;
const SAVE_MS = 1000;
// How often a growing answer is drawn.
const DRAW_MS = 50;
// What a kept answer says that is not complete.
const GROWING = "Not complete: another tab is at it, or the page was closed.";
// A request holds files in base64, a third larger, and the API takes 32 MiB of it by default.
const MAX_FILE_BYTES = 23 * 2 ** 20;
const TITLE_LETTERS = 60;
const NARROW = matchMedia("(max-width: 760px)");
const SETTINGS = { key: "", keepKey: false, model: "", system: "", temperature: "", top_p: "", max_tokens: "", seed: "" };
Object.assign(SETTINGS, { thinking: "default", tools: "", theme: "auto" });
// Types that some browsers do not know.
const TYPES = { mkv: "video/x-matroska", mov: "video/quicktime" };

const state = {
  // The server: its address, its chat models, why it cannot be asked.
  server: "",
  asksKey: false,
  models: [],
  serverError: "",
  keyMissing: false,
  // Chats: kept ones, newest first; the open one, which is kept from its first message on; answers in progress by chat.
  chats: [],
  chat: newChat(),
  running: new Map(),
  // Data URLs by the ids of files, and the files that wait for the next message.
  files: new Map(),
  attached: [],
  values: loadSettings(),
  editing: null,
  search: "",
  sidebar: !NARROW.matches,
  dragging: false,
  atEnd: true,
  notice: "",
  status: "",
  toolsError: "",
  // Whether the chats cover the page, as on a telephone.
  get drawer() {
    return NARROW.matches && this.sidebar;
  },
  get model() {
    return this.models.find(one => one.id === this.values.model) ?? this.models[0];
  },
  // A server that does not say may know everything.
  get modalities() {
    return this.model?.modalities ?? ["text", "image", "video"];
  },
};

// ---- drawing

let frame = 0;
let drawn = 0;

function draw() {
  frame = 0;
  drawn = performance.now();
  document.title = state.chat.title ? `${state.chat.title} – Triton Chat` : "Triton Chat";
  document.documentElement.dataset.theme = state.values.theme;
  render(page(state, act), document.body);
  keepAtEnd();
}

/** Draws soon, and once for many changes. Timers also run in tabs that nobody sees, animation frames do not. */
function update() {
  frame ||= setTimeout(draw, Math.max(0, drawn + DRAW_MS - performance.now()));
}

const byId = id => document.getElementById(id);
let lastTop = 0;

function keepAtEnd() {
  const box = byId("scroller");
  if (!state.atEnd) return;
  box.scrollTop = box.scrollHeight;
  lastTop = box.scrollTop;
}

// ---- settings

function loadSettings() {
  const kept = { ...SETTINGS };
  try {
    Object.assign(kept, JSON.parse(localStorage.getItem("settings")));
    kept.key = sessionStorage.getItem("key") ?? kept.key;
  } catch {
    // No storage, or text of something else: the defaults.
  }
  return kept;
}

function saveSettings() {
  const { key, ...others } = state.values;
  try {
    localStorage.setItem("settings", JSON.stringify(others.keepKey ? state.values : others));
    sessionStorage.setItem("key", key);
  } catch {
    state.notice = "This browser keeps no settings: they are lost when the tab is closed.";
  }
}

function keepDraft(text) {
  try {
    sessionStorage.setItem("draft", text);
  } catch {
    // Without storage it is lost with the tab.
  }
}

function keptDraft() {
  try {
    return sessionStorage.getItem("draft") ?? "";
  } catch {
    return "";
  }
}

// ---- the server

let asking = 0;
let triedKey = "";

/** Asks for the models until the server answers. */
async function findModels() {
  clearTimeout(asking);
  try {
    const { server, asks_key: asksKey } = await pageSettings();
    Object.assign(state, { server, asksKey });
    const listed = await listModels(state.values.key);
    state.models = listed.filter(one => (one.kind ?? "chat") === "chat");
    state.serverError = state.models.length ? "" : "The server has no chat model yet.";
    state.keyMissing = false;
  } catch (error) {
    state.serverError = error.message;
    const known = state.keyMissing && triedKey === state.values.key;
    state.keyMissing = error.status === 401;
    triedKey = state.values.key;
    if (state.keyMissing && !known) {
      draw();
      act.openSettings();
    }
  }
  // A missing key is not found by asking again.
  if (state.serverError && !state.keyMissing) asking = setTimeout(findModels, RETRY_MS);
  update();
}

// ---- chats

function newChat() {
  return { id: history.newId(), title: "", updated: Date.now(), messages: [] };
}

const saves = new Map();

/** Keeps a chat in the browser, at once or within a second. */
function save(chat, later = false) {
  if (later && saves.has(chat.id)) return;
  clearTimeout(saves.get(chat.id));
  const store = () => {
    saves.delete(chat.id);
    if (!state.chats.includes(chat)) return;
    const growing = state.running.get(chat.id)?.message;
    const messages = chat.messages.map(one => (one === growing ? { ...one, note: GROWING } : one));
    history.saveChat({ ...chat, messages }).then(() => channel.postMessage(chat.id), notKept);
  };
  if (later) saves.set(chat.id, setTimeout(store, SAVE_MS));
  else store();
}

function notKept() {
  state.notice = "This browser could not keep the chat (its storage is full or off). Export it before you close the tab.";
  update();
}

function sortChats() {
  state.chats.sort((one, other) => other.updated - one.updated);
}

async function openChat(id) {
  const chat = state.chats.find(one => one.id === id) ?? newChat();
  Object.assign(state, { chat, editing: null, atEnd: true, notice: "" });
  if (NARROW.matches) state.sidebar = false;
  draw();
  for (const file of history.filesOf(chat)) {
    if (!state.files.has(file.id)) state.files.set(file.id, await history.loadFile(file.id).catch(() => undefined));
  }
  update();
}

function forgetFiles(files) {
  if (!files.length) return;
  for (const file of files) state.files.delete(file.id);
  history.deleteFiles(files.map(file => file.id)).catch(notKept);
}

// ---- asking

/** Adds the visitor's message, or the result of a tool call, and requests the answer. */
function ask(text, files = []) {
  const { chat } = state;
  const [call, ...more] = openCalls(chat.messages);
  const message = { id: history.newId(), role: call ? "tool" : "user", text, files };
  if (call) message.call = { ...call };
  chat.messages.push(message);
  chat.title ||= (text.trim() || files[0]?.name || "").split("\n")[0].slice(0, TITLE_LETTERS);
  if (!state.chats.includes(chat)) {
    state.chats.push(chat);
    // The address names the chat, for a reload and for the back button.
    window.history.pushState(null, "", `#${chat.id}`);
  }
  if (more.length) save(chat);
  else answer(chat);
  draw();
}

async function answer(chat) {
  const { values } = state;
  const message = { id: history.newId(), role: "assistant", text: "", reasoning: "", calls: [], note: "", error: "" };
  const controller = new AbortController();
  const asked = performance.now();
  const since = moment => (performance.now() - moment) / 1000;
  let thought = 0;
  state.running.set(chat.id, { message, controller });
  Object.assign(state, { atEnd: true, notice: "", status: "Answering" });
  chat.updated = Date.now();
  sortChats();
  const before = [...chat.messages];
  chat.messages.push(message);
  save(chat);
  update();
  try {
    // A question may be sooner than the list of models, and the server than the next time that it is asked for.
    if (!state.model) await findModels();
    const { model } = state;
    if (!model) throw new Error(state.serverError || "The server has no chat model yet.");
    message.model = model.id;
    const chunks = streamChat(requestBody(model.id, before, values, state.files), values.key, controller.signal);
    for await (const chunk of chunks) {
      const shown = addChunk(message, chunk);
      if (shown) message.ttft ??= since(asked);
      if (message.reasoning) thought ||= performance.now();
      if (thought && !message.text && !message.calls.length) message.reasoningSeconds = since(thought);
      if (shown) message.seconds = since(asked);
      save(chat, true);
      update();
    }
  } catch (error) {
    if (controller.signal.aborted) message.note = "Stopped.";
    else Object.assign(message, { error: error.message, status: error.status });
    if (message.status === 401) [state.keyMissing, triedKey] = [true, values.key];
  }
  state.running.delete(chat.id);
  state.status = message.error ? "" : "The answer is complete";
  save(chat);
  update();
}

// ---- files

async function addFiles(files) {
  state.notice = "";
  for (const file of files) {
    const type = file.type.split(";")[0] || TYPES[file.name.split(".").pop().toLowerCase()] || "";
    const kind = type.split("/")[0];
    const problem = !["image", "video"].includes(kind)
      ? "is not a picture or video"
      : !state.modalities.includes(kind)
        ? `cannot be sent: ${state.model.id} reads ${state.modalities.join(" and ")} only`
        : file.size > MAX_FILE_BYTES
          ? "is larger than 23 MiB, the most that one request can hold"
          : "";
    if (problem) {
      state.notice = `${file.name} ${problem}.`;
      continue;
    }
    const id = history.newId();
    const url = await new Promise((resolve, reject) => {
      const reader = new FileReader();
      reader.onload = () => resolve(reader.result);
      reader.onerror = () => reject(reader.error);
      reader.readAsDataURL(file);
    });
    // The browser's own type may be empty, and the server goes by the one in the URL.
    state.files.set(id, url.replace(/^data:[^,]*/, `data:${type};base64`));
    state.attached.push({ id, name: file.name, type });
    update();
  }
  update();
  byId("question").focus();
}

// ---- what a visitor can do

const act = {
  ask: text => ask(text),

  submit(event) {
    event?.preventDefault();
    const box = byId("question");
    const text = box.value.trim();
    // While an answer grows the text stays in the box.
    if (state.running.has(state.chat.id) || !(text || state.attached.length)) return;
    const files = state.attached;
    for (const file of files) history.saveFile(file.id, state.files.get(file.id)).catch(notKept);
    state.attached = [];
    box.value = "";
    keepDraft("");
    ask(text, files);
  },

  // A reload keeps what is in the box.
  typed: ({ target }) => keepDraft(target.value),

  keydown(event) {
    // Return on a telephone's keyboard begins a line; during the input of Chinese and the like it ends a word.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || matchMedia("(pointer: coarse)").matches) return;
    event.preventDefault();
    act.submit();
  },

  stop: () => state.running.get(state.chat.id)?.controller.abort(),

  regenerate() {
    const { chat } = state;
    if (state.running.has(chat.id)) return;
    if (chat.messages.at(-1)?.role === "assistant") chat.messages.pop();
    answer(chat);
  },

  /** Takes back the last question with its answer, into the box if nothing is in it. */
  undo() {
    const { chat } = state;
    const place = chat.messages.findLastIndex(one => one.role === "user");
    if (place < 0 || state.running.has(chat.id)) return;
    const [question] = chat.messages.splice(place);
    const box = byId("question");
    if (box.value.trim() || state.attached.length) forgetFiles(question.files);
    else {
      box.value = question.text;
      state.attached = question.files;
    }
    if (place) save(chat);
    else {
      // An empty chat is a new one.
      chat.title = "";
      state.chats = state.chats.filter(one => one !== chat);
      history.deleteChat(chat.id).then(() => channel.postMessage(chat.id), notKept);
    }
    box.focus();
    update();
  },

  edit(message) {
    state.editing = message.id;
    draw();
    document.querySelector(".edit textarea").focus();
  },

  cancelEdit() {
    state.editing = null;
    update();
  },

  saveEdit(event, message) {
    event.preventDefault();
    const text = new FormData(event.target).get("text").trim();
    if (!text && !message.files.length) return;
    const { chat } = state;
    const [, ...removed] = chat.messages.splice(chat.messages.indexOf(message));
    forgetFiles(removed.flatMap(one => one.files ?? []));
    state.editing = null;
    ask(text, message.files);
  },

  newChat() {
    if (location.hash) window.history.pushState(null, "", location.pathname);
    openChat("");
    byId("question").focus();
  },

  rename(chat) {
    const title = prompt("Name of this chat", chat.title)?.trim();
    if (!title) return;
    chat.title = title;
    save(chat);
    update();
  },

  async deleteChat(chat, sure = false) {
    if (!sure && !confirm(`Delete “${chat.title}”? This cannot be undone.`)) return;
    state.running.get(chat.id)?.controller.abort();
    state.chats = state.chats.filter(one => one !== chat);
    forgetFiles(history.filesOf(chat));
    await history.deleteChat(chat.id).catch(notKept);
    channel.postMessage(chat.id);
    if (chat === state.chat) act.newChat();
    update();
  },

  async deleteAll() {
    if (!confirm(`Delete all ${state.chats.length} chats? This cannot be undone.`)) return;
    for (const chat of [...state.chats]) await act.deleteChat(chat, true);
  },

  search(event) {
    state.search = event.target.value;
    update();
  },

  async exportChats() {
    const text = await history.writeExport(state.chats);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "application/json" }));
    link.download = `chats-${new Date().toISOString().slice(0, 10)}.json`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  },

  importChats: () => byId("import").click(),

  async importChosen(event) {
    const [file] = event.target.files;
    try {
      const { chats, files } = history.readExport(await file.text());
      // A chat that went on since the export stays as it is.
      const kept = new Map(state.chats.map(chat => [chat.id, chat.updated]));
      const fresh = chats.filter(chat => !(kept.get(chat.id) >= chat.updated));
      const wanted = new Set(fresh.flatMap(history.filesOf).map(one => one.id));
      for (const [id, url] of files) if (wanted.has(id)) await history.saveFile(id, url);
      for (const chat of fresh) {
        await history.saveChat(chat);
        channel.postMessage(chat.id);
        await reload(chat.id);
      }
      state.notice = `Imported: ${fresh.length} of ${chats.length} chats; the others are here already.`;
      if (fresh.length === chats.length) state.notice = `Imported: ${chats.length} ${chats.length === 1 ? "chat" : "chats"}.`;
    } catch (error) {
      state.notice = error.message;
    }
    event.target.value = "";
    update();
  },

  attach(text) {
    if (text) byId("question").value = text;
    byId("files").click();
  },

  filesChosen(event) {
    addFiles([...event.target.files]);
    event.target.value = "";
  },

  detach(file) {
    state.attached = state.attached.filter(one => one !== file);
    forgetFiles([file]);
    update();
  },

  paste(event) {
    const files = [...event.clipboardData.files];
    if (!files.length) return;
    event.preventDefault();
    addFiles(files);
  },

  chooseModel(event) {
    state.values.model = event.target.value;
    saveSettings();
    update();
  },

  toggleSidebar() {
    state.sidebar = !state.sidebar;
    draw();
    if (state.drawer) document.querySelector("aside button").focus();
  },

  openSettings() {
    const dialog = byId("settings");
    if (!dialog.open) dialog.showModal();
    if (state.keyMissing) byId("key")?.focus();
  },

  closeSettings: () => byId("settings").close(),

  settingChanged({ target }) {
    if (!(target.name in state.values)) return;
    // The browser gives no text for a number that it cannot read, and marks the field.
    if (target.validity.badInput) return;
    state.values[target.name] = target.type === "checkbox" ? target.checked : target.value;
    state.toolsError = "";
    saveSettings();
    update();
  },

  settingsDone(event) {
    try {
      readTools(state.values.tools);
    } catch (error) {
      event.preventDefault();
      state.toolsError = error.message;
      update();
    }
  },

  settingsClosed() {
    if (state.keyMissing ? triedKey !== state.values.key : !state.models.length) findModels();
  },

  scrolled() {
    const box = byId("scroller");
    const left = box.scrollHeight - box.scrollTop - box.clientHeight;
    // Only the visitor scrolls up; what grows below is followed until then.
    const atEnd = left < 8 || (state.atEnd && box.scrollTop >= lastTop);
    lastTop = box.scrollTop;
    if (atEnd !== state.atEnd) {
      state.atEnd = atEnd;
      update();
    }
  },

  jump() {
    state.atEnd = true;
    draw();
    byId("question").focus();
  },

  clicked(event) {
    const button = event.target.closest("[data-copy]");
    if (button) act.copy(event, button.closest(".code").querySelector("pre").textContent, button);
  },

  async copy(event, text, button = event.target) {
    await copy(text);
    const label = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = label), 1500);
  },
};

// ---- what happens outside of a control

addEventListener("keydown", event => {
  if (event.key !== "Escape" || byId("settings").open) return;
  if (state.editing) act.cancelEdit();
  else if (state.drawer) act.toggleSidebar();
  else act.stop();
});

addEventListener("dragover", event => {
  if (!event.dataTransfer.types.includes("Files")) return;
  event.preventDefault();
  if (!state.dragging) {
    state.dragging = true;
    update();
  }
});

const dragEnded = () => {
  state.dragging = false;
  update();
};

addEventListener("dragleave", event => event.relatedTarget ?? dragEnded());

addEventListener("drop", event => {
  const files = [...event.dataTransfer.files];
  if (!files.length) return;
  event.preventDefault();
  dragEnded();
  addFiles(files);
});

addEventListener("popstate", () => openChat(location.hash.slice(1)));
addEventListener("resize", update);
addEventListener("pagehide", () => state.chats.filter(chat => state.running.has(chat.id)).forEach(chat => save(chat)));
// Models come and go while the server runs.
addEventListener("visibilitychange", () => document.hidden || findModels());

// ---- other tabs of this browser

const channel = new BroadcastChannel("chats");
channel.onmessage = ({ data }) => reload(data);

/** Takes over what another tab did with a chat. */
async function reload(id) {
  const chat = await history.loadChat(id);
  // What this tab writes itself is newer.
  if (state.running.has(id)) return;
  state.chats = state.chats.filter(one => one.id !== id);
  if (chat) state.chats.push(chat);
  sortChats();
  if (id === state.chat.id) await openChat(id);
  update();
}

// ---- the start

async function start() {
  draw();
  byId("question").value = keptDraft();
  byId("question").focus();
  findModels();
  try {
    // Somebody may have asked meanwhile.
    state.chats = [...(await history.loadChats()).filter(one => one.id !== state.chat.id), ...state.chats];
  } catch {
    notKept();
  }
  sortChats();
  if (state.chat.messages.length) update();
  else await openChat(location.hash.slice(1));
}

start();
