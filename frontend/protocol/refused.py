# SPDX-License-Identifier: Apache-2.0
"""Unsupported fields that would change the answer: a 400 names them, unless their value has no effect.

Fields that are in no table and no model (`user`, `metadata`, `store`, `service_tier` and whatever comes) are ignored.
"""

from collections.abc import Mapping
from typing import Any

from common.errors import RequestError

# Field -> the values, besides null, that have no effect.
_COMMON: dict[str, tuple[Any, ...]] = {
    "add_special_tokens": (),
    "beam_width": (1,),
    "chat_template": (),
    "early_stopping": (False,),
    "guided_whitespace_pattern": (),
    "kv_transfer_params": ({},),
    "length_penalty": (1, 1.0),
    "logits_processors": ([],),
    "logprob_token_ids": ([],),
    "min_length": (0,),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "truncate_prompt_tokens": (),
    "truncation_side": ("left", "right"),  # of a truncation that is refused
    "typical_p": (1, 1.0),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
    "watermarking": (False, {}),
}

REFUSED_IN_CHAT: dict[str, tuple[Any, ...]] = _COMMON | {
    "add_special_tokens": (False,),
    "audio": (),
    "best_of": (1,),
    "documents": ([],),
    "function_call": (),
    "functions": (),
    "guided_decoding_disable_any_whitespace": (False,),
    "modalities": (["text"],),
    "suffix": ("",),
    "verbosity": ("low", "medium", "high"),  # a hint, which need not be followed
    "web_search_options": (),
}

REFUSED_IN_COMPLETIONS: dict[str, tuple[Any, ...]] = _COMMON | {
    "add_special_tokens": (True,),
    "best_of": (1,),
    "suffix": ("",),
}

# Fields of chats that responses name differently or do not have, and those that need stored responses.
REFUSED_IN_RESPONSES: dict[str, tuple[Any, ...]] = REFUSED_IN_CHAT | {
    "background": (False,),
    "conversation": ("", {}),
    "echo": (False,),
    "logprobs": (False,),
    "max_completion_tokens": (),
    "max_tokens": (),
    "max_tool_calls": (),
    "messages": (),
    "n": (1,),
    "previous_response_id": ("",),
    "prompt": ("", {}),
}

# Fields of chats that messages name differently or do not have, and Anthropic's own that need what is not here.
REFUSED_IN_MESSAGES: dict[str, tuple[Any, ...]] = REFUSED_IN_CHAT | {
    "add_generation_prompt": (True,),
    "compaction": (),
    "container": (),
    "continue_final_message": (False,),
    "echo": (False,),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "include_reasoning": (True,),
    "include_stop_str_in_output": (False,),
    "inference_geo": ("global",),
    "logprobs": (False,),
    "max_completion_tokens": (),
    "mcp_servers": ([],),
    "n": (1,),
    "output_format": (),
    "parallel_tool_calls": (True,),
    "reasoning_effort": (),
    "response_format": (),
    "separate_reasoning": (True,),
    "skip_special_tokens": (True,),
    "stop": ([],),
    "stop_token_ids": ([],),
    "structured_outputs": (),
    "thinking_token_budget": (),
    "thread": (),
    "top_logprobs": (0,),
}

# Fields of chats that change the prompt; /tokenize has no use for the others.
REFUSED_IN_TOKENIZE: dict[str, tuple[Any, ...]] = {
    name: REFUSED_IN_CHAT[name]
    for name in ("chat_template", "documents", "function_call", "functions", "truncate_prompt_tokens")
}

# vLLM's fields of embeddings and of scores.
_POOLING: dict[str, tuple[Any, ...]] = {
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "messages": ([],),
    "padding": ("do_not_pad",),
    "priority": (0,),
    "truncation_side": (),
    "use_activation": (True,),
}

REFUSED_IN_EMBEDDINGS: dict[str, tuple[Any, ...]] = _POOLING | {
    "add_special_tokens": (True,),
    "embed_dtype": ("float32",),
    "endianness": ("native", "little"),
}

REFUSED_IN_SCORES: dict[str, tuple[Any, ...]] = _POOLING | {
    "instruction": ("",),
    "max_tokens_per_doc": (0,),
    "max_tokens_per_query": (0,),
}

_HINTS = {
    "best_of": "use 'n'",
    "chat_template": "a chat may have one if the server is started with --trust-request-chat-template",
    "function_call": "use 'tool_choice'",
    "functions": "use 'tools'",
    "logprobs": "use 'include' with message.output_text.logprobs",
    "max_completion_tokens": "use 'max_output_tokens'",
    "max_tokens": "use 'max_output_tokens'",
    "messages": "use 'input'",
    "previous_response_id": "no responses are stored (--response-store), send the earlier items in 'input'",
}


HINTS_IN_MESSAGES = {
    "functions": "use 'tools'",
    "guided_json": "use 'output_config.format'",
    "max_completion_tokens": "use 'max_tokens'",
    "output_format": "use 'output_config.format'",
    "parallel_tool_calls": "use 'tool_choice.disable_parallel_tool_use'",
    "reasoning_effort": "use 'output_config.effort'",
    "response_format": "use 'output_config.format'",
    "stop": "use 'stop_sequences'",
    "structured_outputs": "use 'output_config.format'",
    "thinking_token_budget": "use 'thinking.budget_tokens'",  # nosec B105 # a field's name
}


def refuse(
    body: Mapping[str, Any],
    table: Mapping[str, tuple[Any, ...]],
    *,
    trust_chat_template: bool = False,
    hints: Mapping[str, str] = _HINTS,
) -> None:
    """Raise RequestError naming a field of the table if its value would have an effect.

    trust_chat_template: accept `chat_template` although it is in the table. hints: what to use instead of a field.
    """
    for name in body.keys() & (table.keys() - ({"chat_template"} if trust_chat_template else set())):
        value = body[name]
        # 1 == True in Python, but `"best_of": true` is an error of the client.
        if value is not None and not any(
            value == harmless and type(value) is type(harmless) for harmless in table[name]
        ):
            hint = f"; {hints[name]}" if name in hints else ""
            raise RequestError(f"'{name}' is not supported{hint}", param=name)
