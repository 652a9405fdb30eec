// SPDX-License-Identifier: Apache-2.0
// The same dialogue with a tool, whole and streamed, through clients for Node.js; the answers are in tests/support/agent_rules.py.

import assert from "node:assert/strict";
import { test } from "node:test";
import Anthropic from "@anthropic-ai/sdk";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import OpenAI from "openai";
import { z } from "zod";

const root = process.env.TRITON_CHAT_TEST_URL;
const baseURL = `${root}/v1`;
const model = "qwen3";
const question = "What's the weather like in Boston today?";
const answer = "It is 59.0 °F in Boston, MA. 🌤️";
const called = { location: "Boston, MA", unit: "fahrenheit" };
const parameters = z.object({ location: z.string(), unit: z.string() });
const schema = z.toJSONSchema(parameters);
const getWeather = ({ location, unit }) => `It is 59.0 ${unit} in ${location}.`;

const openai = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const anthropic = new Anthropic({ baseURL: root, apiKey: "unused", maxRetries: 0 });

test("openai: chat, whole and streamed, with the client's loop of tools", async () => {
  const tools = [
    { type: "function", function: { name: "get_weather", parameters: schema, parse: JSON.parse, function: getWeather } },
  ];
  for (const stream of [false, true]) {
    const messages = [{ role: "user", content: question }];
    const runner = openai.chat.completions.runTools({ model, messages, tools, stream });
    const calls = [];
    runner.on("functionToolCall", (call) => calls.push(JSON.parse(call.arguments)));
    assert.equal(await runner.finalContent(), answer);
    assert.deepEqual(calls, [called]);
  }
});

test("openai: responses, whole and streamed", async () => {
  const tools = [{ type: "function", name: "get_weather", parameters: schema, strict: true }];
  for (const stream of [false, true]) {
    const ask = async (input) => {
      if (!stream) return openai.responses.create({ model, input, tools });
      return openai.responses.stream({ model, input, tools }).finalResponse();
    };
    const first = await ask([{ role: "user", content: question }]);
    const [call] = first.output.filter((item) => item.type === "function_call");
    assert.deepEqual(JSON.parse(call.arguments), called);
    const result = { type: "function_call_output", call_id: call.call_id, output: getWeather(called) };
    const last = await ask([{ role: "user", content: question }, ...first.output, result]);
    assert.equal(last.output_text, answer);
  }
});

test("anthropic: messages, whole and streamed", async () => {
  const tools = [{ name: "get_weather", input_schema: schema }];
  for (const stream of [false, true]) {
    const ask = async (messages) => {
      const body = { model, max_tokens: 200, messages, tools };
      return stream ? anthropic.messages.stream(body).finalMessage() : anthropic.messages.create(body);
    };
    const first = await ask([{ role: "user", content: question }]);
    const [call] = first.content.filter((block) => block.type === "tool_use");
    assert.deepEqual(call.input, called);
    const result = { type: "tool_result", tool_use_id: call.id, content: getWeather(call.input) };
    const last = await ask([
      { role: "user", content: question },
      { role: "assistant", content: first.content },
      { role: "user", content: [result] },
    ]);
    assert.equal(last.content.at(-1).text, answer);
  }
});

const compatible = createOpenAICompatible({
  name: "local",
  baseURL,
  apiKey: "unused",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const provider = createOpenAI({ baseURL, apiKey: "unused" });
const models = { "openai-compatible": compatible(model), chat: provider.chat(model), responses: provider.responses(model) };

for (const [name, chosen] of Object.entries(models)) {
  // By default the SDK refers to stored items of earlier responses.
  const fields = { model: chosen, maxRetries: 0, providerOptions: { openai: { store: false } } };
  const tools = { get_weather: tool({ inputSchema: parameters, execute: getWeather }) };

  test(`AI SDK: ${name}, whole`, async () => {
    const done = await generateText({ ...fields, prompt: question, tools, stopWhen: stepCountIs(3) });
    assert.equal(done.text, answer);
    assert.deepEqual(done.steps[0].toolCalls[0].input, called);
    assert.ok(done.totalUsage.outputTokens > 0);
  });

  test(`AI SDK: ${name}, streamed`, async () => {
    const errors = [];
    const onError = ({ error }) => errors.push(error);
    const stream = streamText({ ...fields, prompt: question, tools, stopWhen: stepCountIs(3), onError });
    const parts = [];
    for await (const part of stream.textStream) parts.push(part);
    assert.deepEqual(errors, []);
    assert.equal(parts.join(""), answer);
    assert.ok((await stream.totalUsage).outputTokens > 0);
  });

  test(`AI SDK: ${name}, structured`, async () => {
    const output = Output.object({ schema: z.object({ location: z.string(), temperature: z.number() }) });
    const done = await generateText({ ...fields, prompt: "Write it as JSON: Boston has 59.0", output });
    assert.deepEqual(done.output, { location: "Boston", temperature: 59 });
  });
}
