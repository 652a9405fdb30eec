# SPDX-License-Identifier: Apache-2.0
"""Every option of a request, and each place that must know it: an input of the ensemble, or a request parameter."""

from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from frontend.endpoints.chat import plan_chat
from frontend.endpoints.completions import plan_completion
from frontend.protocol.chat import ChatBody
from frontend.protocol.completions import CompletionBody
from frontend.serving.served_model import RequestedModel
from frontend.settings import Settings

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
USER = {"role": "user", "content": "Hi"}

# Field -> a value, and the inputs and parameters that change with it. Those of the chat's JSON begin with "messages.".
# Parameters reach the engine and postprocessing; inputs reach preprocessing, or the engine under the same name.
COMMON: dict[str, tuple[Any, set[str]]] = {
    "temperature": (0.5, {"temperature"}),
    "top_p": (0.5, {"top_p"}),
    "top_k": (5, {"top_k"}),
    "min_p": (0.5, {"parameter min_p"}),
    "thinking_token_budget": (64, {"parameter thinking_token_budget"}),
    "seed": (5, {"seed"}),
    "presence_penalty": (1, {"presence_penalty"}),
    "frequency_penalty": (1, {"frequency_penalty"}),
    "repetition_penalty": (1.5, {"repetition_penalty"}),
    "min_tokens": (2, {"min_tokens"}),
    "max_tokens": (3, {"max_tokens"}),
    # Only a streaming engine can be stopped.
    "stop": ("x", {"parameter stop", "stream"}),
    "stop_token_ids": ([5], {"stop_token_ids", "parameter stop_token_ids"}),
    "include_stop_str_in_output": (True, {"parameter include_stop"}),
    "skip_special_tokens": (False, {"parameter skip_special_tokens"}),
    "ignore_eos": (True, {"end_id"}),
    "bad_words": (["x"], {"bad_words"}),
    "logit_bias": ({"5": 1}, {"logit_bias_ids", "logit_bias_values"}),
    "priority": (5, {"parameter request_priority"}),
    "allowed_token_ids": ([5], {"parameter allowed_token_ids"}),
    "cache_salt": ("x", {"parameter cache_salt"}),
    "add_special_tokens": (True, {"parameter add_special_tokens"}),
    "truncate_prompt_tokens": (5, {"parameter truncate_prompt_tokens"}),
    "truncation_side": ("left", {"parameter truncation_side"}),
    "return_token_ids": (True, {"parameter token_ids", "parameter prompt_token_ids"}),
    "prompt_logprobs": (2, {"parameter prompt_logprobs"}),
    "stream": (True, {"stream"}),
    # These need nothing outside the frontend.
    "model": ("qwen", set()),
    "n": (2, set()),
    "stream_options": (None, set()),
}
CHAT: dict[str, tuple[Any, set[str]]] = COMMON | {
    "messages": ([{"role": "user", "content": "Ho"}], {"messages.messages"}),
    "max_completion_tokens": (3, {"max_tokens"}),
    "logprobs": (True, {"return_log_probs", "parameter logprobs"}),
    "top_logprobs": (2, {"parameter top_logprobs"}),
    "tools": ([TOOL], {"messages.tools", "parameter tools", "parameter text_arguments"}),
    "tool_choice": ("required", {"messages.tool_choice", "parameter tool_choice"}),
    "parallel_tool_calls": (False, {"messages.parallel_tool_calls"}),
    "response_format": ({"type": "json_object"}, {"messages.response_format"}),
    "structured_outputs": ({"regex": "a"}, {"messages.structured_outputs"}),
    "guided_json": ({}, {"messages.structured_outputs"}),
    "guided_regex": ("a", {"messages.structured_outputs"}),
    "guided_choice": (["a"], {"messages.structured_outputs"}),
    "guided_grammar": ("root ::= a", {"messages.structured_outputs"}),
    "enable_thinking": (False, {"messages.enable_thinking", "parameter enable_thinking"}),
    "thinking": ({"type": "disabled"}, {"messages.enable_thinking", "parameter enable_thinking"}),
    "reasoning_effort": (
        "none",
        {"messages.reasoning_effort", "messages.enable_thinking", "parameter enable_thinking"},
    ),
    "chat_template": ("{{ x }}", {"messages.chat_template"}),
    "chat_template_kwargs": ({"x": 1}, {"messages.chat_template_kwargs"}),
    "mm_processor_kwargs": ({"max_pixels": 1000}, {"messages.mm_processor_kwargs"}),
    "media_io_kwargs": ({"video": {"num_frames": 4}}, {"messages.media_io_kwargs"}),
    "documents": ([{"text": "x"}], {"messages.documents"}),
    "verbosity": ("low", {"messages.verbosity"}),
    "add_generation_prompt": (True, {"messages.add_generation_prompt"}),
    "continue_final_message": (True, {"messages.continue_final_message"}),
    "separate_reasoning": (False, {"parameter inline_reasoning"}),
    "include_reasoning": (False, set()),
    "echo": (True, set()),
}
GUIDE = {"guided_decoding_guide_type", "guided_decoding_guide"}
COMPLETIONS: dict[str, tuple[Any, set[str]]] = COMMON | {
    "prompt": ("Ho", {"text_input"}),
    "logprobs": (2, {"return_log_probs", "parameter logprobs", "parameter top_logprobs"}),
    "echo": (True, set()),
    "response_format": ({"type": "json_object"}, {"guided_decoding_guide_type"}),
    "structured_outputs": ({"regex": "a"}, GUIDE),
    "guided_json": ({}, GUIDE),
    "guided_regex": ("a", GUIDE),
    "guided_choice": (["a"], GUIDE),
    "guided_grammar": ("root ::= a", GUIDE),
}
# What a field needs beside it.
NEEDS: dict[str, dict[str, Any]] = {
    "tool_choice": {"tools": [TOOL]},
    "parallel_tool_calls": {"tools": [TOOL]},
    "top_logprobs": {"logprobs": True},
    "continue_final_message": {"add_generation_prompt": False},
}


class FakeModel:
    """Accepts every request."""

    settings = Settings(trust_request_chat_template=True)

    async def require_input(self, *_: Any) -> None: ...

    capabilities = SimpleNamespace(inputs=frozenset())


async def places(chat: bool, fields: dict[str, Any]) -> dict[str, Any]:
    """The inputs and parameters of the request that these fields make."""
    model: Any = RequestedModel(FakeModel(), "qwen", "qwen")
    plan: Any = await (plan_chat if chat else plan_completion)(model, fields)
    request = plan.requests[0]
    found = {name: values for name, _, values in request.tensors()}
    found |= {f"parameter {name}": value for name, value in request.request_parameters().items()}
    for name, value in orjson.loads(found.pop("messages", (b"{}",))[0]).items():
        found[f"messages.{name}"] = value
    return found


CASES = [(True, name) for name in CHAT] + [(False, name) for name in COMPLETIONS]


@pytest.mark.parametrize(("chat", "name"), CASES)
async def test_an_option_reaches_each_step_that_must_know_it(chat: bool, name: str) -> None:
    value, expected = (CHAT if chat else COMPLETIONS)[name]
    base = ({"messages": [USER]} if chat else {"prompt": "Hi"}) | (NEEDS.get(name, {}) if chat else {})
    before, after = await places(chat, base), await places(chat, base | {name: value})
    assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} == expected


def test_the_tables_have_every_option() -> None:
    assert set(CHAT) == set(ChatBody.model_fields)
    assert set(COMPLETIONS) == set(CompletionBody.model_fields)


async def test_options_that_need_each_other() -> None:
    """Stop strings wait for min_tokens, and echoed prompts have log-probabilities."""
    stopped = await places(True, {"messages": [USER], "stop": "x", "min_tokens": 2})
    assert (stopped["min_tokens"], stopped["parameter min_tokens"]) == ((2,), 2)
    assert "parameter prompt_logprobs" in await places(False, {"prompt": "Hi", "echo": True, "logprobs": 2})
