# SPDX-License-Identifier: Apache-2.0
"""Unsupported fields that would change the answer: a 400 names them, unless their value has no effect.

Every field of OpenAI's and Anthropic's clients, of vLLM and of SGLang is in a model of this package, here, or in
`ignored`; docs/request-fields.md is made of these. Fields that are nowhere are ignored.
"""

from collections.abc import Mapping
from typing import Any

from common.errors import RequestError

Refused = Mapping[str, tuple[Any, ...]]

# Field -> the values, besides null, that have no effect.
_COMMON: dict[str, tuple[Any, ...]] = {
    "beam_width": (1,),
    "best_of": (1,),
    "bootstrap_host": (),
    "bootstrap_port": (),
    "bootstrap_room": (),
    "chat_template": (),
    "custom_logit_processor": (),
    "custom_params": ({},),
    "disagg_prefill_dp_rank": (),
    "early_stopping": (False,),
    "ebnf": (),
    "ec_transfer_params": ({},),
    "extra_key": (),
    "guided_whitespace_pattern": (),
    "images_config": ({},),
    "json_schema": (),
    "kv_transfer_params": ({},),
    "length_penalty": (1, 1.0),
    "logits_processors": ([],),
    "logprob_token_ids": ([],),
    "lora_path": (),
    "min_length": (0,),
    "no_stop_trim": (False,),
    "prompt_embeds": (),
    "regex": (),
    "repetition_detection": (),
    "return_cached_tokens_details": (False,),
    "return_hidden_states": (False,),
    "return_routed_experts": (False,),
    "return_spec_tokens_details": (False,),
    "return_tokens_as_token_ids": (False,),
    "return_weight_versions": (False,),
    "routed_experts_prompt_start": (0,),
    "routed_experts_start_len": (0,),
    "session_params": ({},),
    "stop_regex": ([],),
    "suffix": ("",),
    "typical_p": (1, 1.0),
    "use_beam_search": (False,),
    "vllm_xargs": ({},),
    "watermark": ({},),
    "watermarking": (False, {}),
}

REFUSED_IN_CHAT: Refused = _COMMON | {
    "audio": (),
    "function_call": (),
    "functions": (),
    "guided_decoding_disable_any_whitespace": (False,),
    "input_ids": ([],),
    "max_dynamic_patch": (),
    "min_dynamic_patch": (),
    "modalities": (["text"],),
    "moderation": (),
    "return_flat_raw_output_top_logprobs": (False,),
    "return_flat_raw_top_logprobs_b64": (False, True),  # the form of what is refused
    "return_input_ids_in_sglext": (False,),
    "return_meta_info": (False,),
    "return_output_ids_in_sglext": (False,),
    "return_prompt_text": (False,),
    "return_prompt_token_ids": (False,),
    "return_sampling_mask": (False,),
    "sampling_logprobs_mode": (),
    "task": (),
    "use_audio_in_video": (False,),
    "video_config": ({},),
    "web_search_options": (),
}

REFUSED_IN_COMPLETIONS: Refused = _COMMON | {"mm_processor_kwargs": ({},)}

# Fields of chats that responses name differently or do not have, and those that need stored responses.
REFUSED_IN_RESPONSES: Refused = {
    **REFUSED_IN_CHAT,
    "background": (False,),
    "context_management": ([],),
    "conversation": ("", {}),
    "echo": (False,),
    "enable_response_messages": (False,),
    "image": ({},),
    "logprobs": (False,),
    "max_completion_tokens": (),
    "max_tokens": (),
    "max_tool_calls": (),
    "messages": (),
    "n": (1,),
    "previous_input_messages": ([],),
    "previous_response_id": (),
    "prompt": ("", {}),
    "prompt_logprobs": (),
    "return_token_ids": (False,),
    "verbosity": (),
}

# Fields of chats that messages name differently or do not have, and Anthropic's own that need what is not here.
REFUSED_IN_MESSAGES: Refused = {
    **REFUSED_IN_CHAT,
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
    "prompt_logprobs": (),
    "reasoning_effort": (),
    "response_format": (),
    "return_token_ids": (False,),
    "separate_reasoning": (True,),
    "skip_special_tokens": (True,),
    "stop": ([],),
    "stop_token_ids": ([],),
    "structured_outputs": (),
    "thinking_token_budget": (),
    "thread": (),
    "top_logprobs": (0,),
    "truncate_prompt_tokens": (),
    "truncation_side": ("left", "right"),  # of a truncation that is refused
}

# Fields of chats that change the prompt; /tokenize has no use for the others.
REFUSED_IN_TOKENIZE: Refused = {
    **{name: REFUSED_IN_CHAT[name] for name in ("chat_template", "function_call", "functions")},
    "truncate_prompt_tokens": (),
}

# vLLM's and SGLang's fields of embeddings and of scores.
_POOLING: dict[str, tuple[Any, ...]] = {
    "cache_salt": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "lora_path": (),
    "messages": ([],),
    "mm_processor_kwargs": ({},),
    "padding": ("do_not_pad",),
    "priority": (0,),
    "truncation_side": (),
    "use_activation": (True,),
}

REFUSED_IN_EMBEDDINGS: Refused = _POOLING | {
    "add_generation_prompt": (False,),
    "add_special_tokens": (True,),
    "continue_final_message": (False,),
    "embed_dtype": ("float32",),
    "embed_override_token_id": (),
    "embed_overrides": ([],),
    "endianness": ("native", "little"),
    "media_io_kwargs": ({},),
}

REFUSED_IN_SCORES: Refused = _POOLING | {
    "instruct": ("",),
    "instruction": ("",),
    "max_tokens_per_doc": (0,),
    "max_tokens_per_query": (0,),
}

# Why fields are refused, or what to use instead -> the fields.
_REASONS: Mapping[str, tuple[str, ...]] = {
    "no engine here has beam search": ("beam_width", "early_stopping", "length_penalty", "use_beam_search"),
    "there is no split of prefill and decode that a client could steer": (
        *("bootstrap_host", "bootstrap_port", "bootstrap_room", "disagg_prefill_dp_rank"),
        *("ec_transfer_params", "kv_transfer_params"),
    ),
    "requests bring no code and no arguments for it": (
        *("custom_logit_processor", "custom_params", "logits_processors", "vllm_xargs"),
    ),
    "the engines have no such sampling": ("typical_p",),
    "use 'repetition_penalty' and a limit of tokens": ("repetition_detection",),
    "the engines write no watermarks": ("watermark", "watermarking"),
    "stop strings are texts; use 'stop'": ("stop_regex",),
    "the prompt is a text or token ids": ("prompt_embeds",),
    "the model continues a text and fills no gaps": ("suffix",),
    "the answer has no such field": (
        *("return_cached_tokens_details", "return_hidden_states", "return_meta_info", "return_prompt_text"),
        *("return_routed_experts", "return_sampling_mask", "return_spec_tokens_details", "return_weight_versions"),
        *("return_flat_raw_output_top_logprobs", "return_flat_raw_top_logprobs_b64", "sampling_logprobs_mode"),
        *("routed_experts_prompt_start", "routed_experts_start_len", "enable_response_messages"),
    ),
    "the answers of this API have no place for it; use a chat": (
        *("echo", "n", "prompt_logprobs", "return_token_ids", "top_logprobs"),
        *("include_reasoning", "include_stop_str_in_output", "separate_reasoning", "skip_special_tokens"),
    ),
    "with it vLLM loses the log-probabilities of other requests in the same step": ("logprob_token_ids",),
    "use 'n'": ("best_of",),
    "a chat may have one if the server is started with --trust-request-chat-template": ("chat_template",),
    "use 'tool_choice'": ("function_call",),
    "use 'tools'": ("functions",),
    "use 'guided_grammar'": ("ebnf",),
    "use 'guided_regex'": ("regex",),
    "use 'guided_json'": ("json_schema",),
    "the engine's grammars decide where JSON may have whitespace": (
        *("guided_decoding_disable_any_whitespace", "guided_whitespace_pattern"),
    ),
    "use 'cache_salt'": ("extra_key",),
    "use 'mm_processor_kwargs'": ("images_config", "max_dynamic_patch", "min_dynamic_patch", "video_config"),
    "name the adapter in 'model'": ("lora_path",),
    "use 'min_tokens'": ("min_length",),
    "use 'include_stop_str_in_output'": ("no_stop_trim",),
    "use 'return_token_ids'": (
        *("return_input_ids_in_sglext", "return_output_ids_in_sglext", "return_prompt_token_ids"),
        "return_tokens_as_token_ids",
    ),
    "use /v1/completions": ("input_ids",),
    "there is no audio": ("audio", "modalities", "use_audio_in_video"),
    "this server judges no contents": ("moderation",),
    "no chat template here reads it": ("task",),
    "this server searches nothing": ("web_search_options",),
    "no conversations are kept, send the earlier items in 'input'": ("conversation", "previous_input_messages"),
    "no responses are stored (--response-store), send the earlier items in 'input'": ("previous_response_id",),
    "a response is made while its client waits": ("background",),
    "no sessions are kept": ("session_params",),
    "no prompts are stored": ("prompt",),
    "nothing of the prompt is left out": (
        *("compaction", "context_management", "thread", "truncate_prompt_tokens", "truncation_side"),
    ),
    "give each image its 'detail'": ("image",),
    "use 'include' with message.output_text.logprobs": ("logprobs",),
    "use 'max_output_tokens'": ("max_completion_tokens", "max_tokens"),
    "use 'input'": ("messages",),
    "use 'text.verbosity'": ("verbosity",),
    "tools are run by the client": ("container", "max_tool_calls", "mcp_servers"),
    "the answer is made where this server is": ("inference_geo",),
    "this API ends and continues turns by its messages": ("add_generation_prompt", "continue_final_message"),
    "this API has no ids of tokens": ("stop_token_ids",),
    "the model's own form is used": (
        *("add_special_tokens", "chat_template_kwargs", "embed_override_token_id", "embed_overrides"),
        *("instruct", "instruction", "use_activation", "padding"),
    ),
    "a completion has no pictures": ("mm_processor_kwargs",),
    "numbers are 32-bit floats, little endian": ("embed_dtype", "endianness"),
    "texts are embedded and scored in the order of their arrival": ("priority",),
    "use 'truncate_prompt_tokens'": ("max_tokens_per_doc", "max_tokens_per_query"),
}
_REASON = {name: reason for reason, names in _REASONS.items() for name in names}

_REASONS_IN_EMBEDDINGS = {
    **_REASON,
    "add_generation_prompt": "chats are not embedded",
    "cache_salt": "prompts of embeddings cannot be kept apart",
    "chat_template": "the model's own form is used",
    "continue_final_message": "chats are not embedded",
    "media_io_kwargs": "only texts are embedded and scored",
    "messages": "chats are not embedded",
    "mm_processor_kwargs": "only texts are embedded and scored",
    "truncation_side": "inputs are cut where the checkpoint's tokenizer cuts them",
}

_REASONS_IN_MESSAGES = {
    **_REASON,
    "functions": "use 'tools'",
    "guided_choice": "use 'output_config.format'",
    "guided_grammar": "use 'output_config.format'",
    "guided_json": "use 'output_config.format'",
    "guided_regex": "use 'output_config.format'",
    "json_schema": "use 'output_config.format'",
    "ebnf": "use 'output_config.format'",
    "regex": "use 'output_config.format'",
    "logprobs": "the answers of this API have no place for it; use a chat",
    "max_completion_tokens": "use 'max_tokens'",
    "no_stop_trim": "the answers of this API have no place for it; use a chat",
    "output_format": "use 'output_config.format'",
    "parallel_tool_calls": "use 'tool_choice.disable_parallel_tool_use'",
    "reasoning_effort": "use 'output_config.effort'",
    "response_format": "use 'output_config.format'",
    "stop": "use 'stop_sequences'",
    "structured_outputs": "use 'output_config.format'",
    "thinking_token_budget": "use 'thinking.budget_tokens'",  # nosec B105 # a field's name
}


def reasons(table: Refused) -> Mapping[str, str]:
    """Return why each field of a table is refused, or what to use instead."""
    if table is REFUSED_IN_MESSAGES:
        return _REASONS_IN_MESSAGES
    return _REASONS_IN_EMBEDDINGS if table is REFUSED_IN_EMBEDDINGS or table is REFUSED_IN_SCORES else _REASON


def refuse(body: Mapping[str, Any], table: Refused, *, trust_chat_template: bool = False) -> None:
    """Raise RequestError naming a field of the table if its value would have an effect.

    trust_chat_template: accept `chat_template` although it is in the table.
    """
    for name in body.keys() & (table.keys() - ({"chat_template"} if trust_chat_template else set())):
        value = body[name]
        # 1 == True in Python, but `"best_of": true` is an error of the client.
        if value is not None and not any(
            value == harmless and type(value) is type(harmless) for harmless in table[name]
        ):
            raise RequestError(f"'{name}' is not supported; {reasons(table)[name]}", param=name)
