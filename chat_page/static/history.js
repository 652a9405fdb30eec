// SPDX-License-Identifier: Apache-2.0
// Chats and their files in this browser's IndexedDB. Files are apart, so that saving a growing answer writes only text.

let opening;

function database() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("triton-chat", 1);
    request.onupgradeneeded = () => {
      request.result.createObjectStore("chats", { keyPath: "id" });
      request.result.createObjectStore("files");
    };
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
  return opening;
}

async function transact(store, mode, work) {
  const transaction = (await database()).transaction(store, mode);
  const request = work(transaction.objectStore(store));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(request?.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });
}

export const loadChats = () => transact("chats", "readonly", store => store.getAll());
export const loadChat = id => transact("chats", "readonly", store => store.get(id));
export const saveChat = chat => transact("chats", "readwrite", store => store.put(chat));
export const deleteChat = id => transact("chats", "readwrite", store => store.delete(id));
export const loadFile = id => transact("files", "readonly", store => store.get(id));
export const saveFile = (id, url) => transact("files", "readwrite", store => store.put(url, id));
export const deleteFiles = ids => transact("files", "readwrite", store => ids.map(id => store.delete(id))[0]);

/** All chats as a text that `readExport` reads, with their files. */
export async function writeExport(chats) {
  const files = {};
  for (const file of chats.flatMap(filesOf)) files[file.id] = await loadFile(file.id);
  return JSON.stringify({ format: "triton-chat", version: 1, chats, files }, null, 1);
}

/** The chats and files of an export. Throws Error with a sentence if the text is none. */
export function readExport(text) {
  let data = null;
  try {
    data = JSON.parse(text);
  } catch {
    // It is answered below, like JSON of other kinds.
  }
  if (data?.format !== "triton-chat" || !Array.isArray(data.chats)) throw new Error("This file is no export of chats.");
  const files = Object.entries(data.files ?? {}).filter(([, url]) => /^data:(image|video)\//.test(url));
  return { chats: data.chats.map(readChat), files };
}

/** The files of all messages of a chat. */
export const filesOf = chat => chat.messages.flatMap(message => message.files ?? []);

// Only the known fields, each of its type: a file may come from anywhere.
function readChat(chat) {
  const text = value => (typeof value === "string" ? value : "");
  const list = value => (Array.isArray(value) ? value : []);
  const number = value => (Number.isFinite(value) ? value : undefined);
  const call = one => ({ id: text(one.id), name: text(one.name), arguments: text(one.arguments) });
  const messages = list(chat.messages).map(one => {
    if (!["user", "assistant", "tool"].includes(one.role)) throw new Error("This export has a message of an unknown role.");
    const message = { id: text(one.id) || newId(), role: one.role, text: text(one.text) };
    message.files = list(one.files).map(file => ({ id: text(file.id), name: text(file.name), type: text(file.type) }));
    if (one.role === "tool") message.call = call(one.call ?? {});
    if (one.role !== "assistant") return message;
    for (const name of ["reasoning", "note", "error", "model"]) message[name] = text(one[name]);
    for (const name of ["tokens", "promptTokens", "ttft", "seconds", "reasoningSeconds"]) message[name] = number(one[name]);
    return { ...message, calls: list(one.calls).map(call) };
  });
  return { id: text(chat.id) || newId(), title: text(chat.title), updated: number(chat.updated) ?? Date.now(), messages };
}

/** A random id. `crypto.randomUUID` is missing where the page comes over plain HTTP from another machine. */
export function newId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map(byte => byte.toString(16).padStart(2, "0")).join("");
}
