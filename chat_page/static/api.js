// SPDX-License-Identifier: Apache-2.0
// OpenAI's API: chats as requests, answers as deltas of a stream, errors as sentences.

export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** The page's own settings: the server's address, and whether visitors need a key of their own. */
export async function pageSettings() {
  return (await call("page.json")).json();
}

/** The server's models, in its order. */
export async function listModels(key) {
  return (await (await call("v1/models", { headers: headers(key) })).json()).data;
}

/** Yields the chunks of a streamed chat completion. Throws ApiError if it does not come to its end. */
export async function* streamChat(body, key, signal) {
  const options = { method: "POST", headers: { ...headers(key), "content-type": "application/json" }, signal };
  const response = await call("v1/chat/completions", { ...options, body: JSON.stringify(body) });
  for await (const data of events(response.body, signal)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(`The answer broke off: ${sentence(chunk.error.message)}`);
    yield chunk;
  }
  throw new ApiError("The answer broke off: the connection to the server was lost.");
}

/** The fields of a request. settings: as in app.js. urls: the data: URLs of files by their ids. Throws ApiError. */
export function requestBody(model, messages, settings, urls) {
  const system = settings.system.trim() ? [{ role: "system", content: settings.system }] : [];
  const body = { model, stream: true };
  body.messages = [...system, ...messages.filter(isSent).map(one => toOpenAI(one, urls))];
  body.stream_options = { include_usage: true };
  for (const name of ["temperature", "top_p", "max_tokens", "seed"]) {
    if (settings[name] !== "") body[name] = Number(settings[name]);
  }
  const tools = readTools(settings.tools);
  if (tools.length) body.tools = tools;
  if (settings.thinking !== "default") body.enable_thinking = settings.thinking === "on";
  return body;
}

/** The tools field: JSON, a list of OpenAI's tools or of bare functions. Throws ApiError. */
export function readTools(text) {
  if (!text.trim()) return [];
  let tools;
  try {
    tools = JSON.parse(text);
  } catch (error) {
    throw new ApiError(`The tools in the settings are no JSON: ${error.message}.`);
  }
  tools = Array.isArray(tools) ? tools : [tools];
  if (!tools.every(one => one && typeof one === "object" && !Array.isArray(one))) {
    throw new ApiError("The tools in the settings must be a JSON list of functions.");
  }
  return tools.map(one => ("function" in one ? one : { type: "function", function: one }));
}

/** The tool calls at the end of a chat that have no result yet, in order. */
export function openCalls(messages) {
  const answered = new Set();
  for (const message of messages.toReversed()) {
    if (message.role !== "tool") return (message.calls ?? []).filter(call => !answered.has(call.id));
    answered.add(message.call.id);
  }
  return [];
}

/** Adds a chunk of the stream to an answer. Returns whether it brought anything to show. */
export function addChunk(message, chunk) {
  if (chunk.usage) {
    message.promptTokens = chunk.usage.prompt_tokens;
    message.tokens = chunk.usage.completion_tokens;
  }
  const choice = chunk.choices?.[0];
  if (!choice) return false;
  const { content, tool_calls: calls = [], ...delta } = choice.delta ?? {};
  const reasoning = delta.reasoning_content ?? delta.reasoning;
  message.text += content ?? "";
  message.reasoning += reasoning ?? "";
  for (const piece of calls ?? []) {
    const call = (message.calls[piece.index] ??= { id: "", name: "", arguments: "" });
    call.id += piece.id ?? "";
    call.name += piece.function?.name ?? "";
    call.arguments += piece.function?.arguments ?? "";
  }
  if (choice.finish_reason === "length") message.note = "Cut off: the answer reached the most tokens allowed.";
  return Boolean(content || reasoning || calls?.length);
}

// An answer that failed or was stopped before its first word is no part of the conversation, nor is its question:
// many models' templates take questions and answers only in turns.
function isSent(message, place, messages) {
  const empty = one => one?.role === "assistant" && !one.text && !one.calls.length;
  return !empty(message) && !(message.role === "user" && empty(messages[place + 1]));
}

function toOpenAI(message, urls) {
  if (message.role === "tool") return { role: "tool", tool_call_id: message.call.id, content: message.text };
  if (message.calls?.length) {
    const calls = message.calls.map(({ id, ...call }) => ({ id, type: "function", function: call }));
    return { role: "assistant", content: message.text || null, tool_calls: calls };
  }
  if (!message.files?.length) return { role: message.role, content: message.text };
  const parts = message.files.map(file => {
    const url = urls.get(file.id);
    if (!url) throw new ApiError(`The file ${file.name} is no longer kept in this browser.`);
    // OpenAI's API has no `video_url`; vLLM and others add it, as this project's server does.
    const kind = file.type.startsWith("video/") ? "video_url" : "image_url";
    return { type: kind, [kind]: { url } };
  });
  return { role: "user", content: message.text ? [...parts, { type: "text", text: message.text }] : parts };
}

function headers(key) {
  if (!key) return {};
  if (!/^[\x21-\x7e]+$/.test(key)) throw new ApiError("This API key has characters that no key has.", 401);
  return { authorization: `Bearer ${key}` };
}

async function call(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (options?.signal?.aborted) throw error;
    throw new ApiError("The chat page's own server cannot be reached. It may have been stopped.");
  }
  if (response.ok) return response;
  const error = await response.json().then(body => body.error, () => null);
  const message = sentence(error?.message || response.statusText || "it gave no reason");
  if (response.status === 401) throw new ApiError("The server requires a valid API key. Enter yours in the settings.", 401);
  if (error?.code === "unreachable") throw new ApiError(`${message} It may be starting.`, response.status);
  throw new ApiError(`The server refused this (${response.status}): ${message}`, response.status);
}

/** Yields the data of server-sent events. Ends early if the connection is lost. */
async function* events(stream, signal) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      if (signal.aborted) throw error;
      return;
    }
    if (part.done) return;
    const lines = (buffer + part.value).split(/\r?\n/);
    buffer = lines.pop();
    for (const line of lines) if (line.startsWith("data:")) yield line.slice(5).trim();
  }
}

const sentence = text => (/[.!?]$/.test(text.trim()) ? text.trim() : `${text.trim()}.`);
