# SPDX-License-Identifier: Apache-2.0
"""Known fields that are accepted and have no effect, because an answer without them is a right answer: field -> why.

Nothing reads these at run time, as fields that are nowhere are ignored too; docs/request-fields.md is made of them.
"""

from collections.abc import Mapping

_ACCOUNT = "about accounts and prices of a service"
_NOTHING_STORED = "nothing is stored"
_OWN_CACHE = "the prefix cache finds what was sent before by itself"
_RENDER = "read only by vLLM's endpoints that render prompts"
_NAMED = "the header X-Request-Id names a request"
_PLACEMENT = "where a request runs does not change its answer"
_PACKETS = "how a stream is cut into chunks does not change its text"

_COMMON = {
    "custom_labels": "labels of another server's metrics",
    "data_parallel_rank": _PLACEMENT,
    "mm_payload": _RENDER,
    "request_id": _NAMED,
    "return_mm_kwargs": _RENDER,
    "return_token_offsets": _RENDER,
    "rid": _NAMED,
    "routed_dp_rank": _PLACEMENT,
    "session_id": "the prefix cache needs no sessions",
    "spaces_between_special_tokens": "without effect on the tokenizers that are supported",
    "stream_interval": _PACKETS,
    "user": "nothing is kept about users",
}

IGNORED_IN_COMPLETIONS: Mapping[str, str] = _COMMON

IGNORED_IN_CHAT: Mapping[str, str] = _COMMON | {
    "metadata": _NOTHING_STORED,
    "prediction": "it makes OpenAI's models faster and leaves their answers as they are",
    "prompt_cache_key": _OWN_CACHE,
    "prompt_cache_options": _OWN_CACHE,
    "prompt_cache_retention": _OWN_CACHE,
    "safety_identifier": "nothing is kept about users",
    "service_tier": _ACCOUNT,
    "store": _NOTHING_STORED,
    "stream_reasoning": _PACKETS,
}

IGNORED_IN_RESPONSES: Mapping[str, str] = {
    **{name: why for name, why in IGNORED_IN_CHAT.items() if name not in ("metadata", "store")},
    "access_programs": _ACCOUNT,
    "stream_options": "events have no padding, and every stream ends with the usage",
}

IGNORED_IN_MESSAGES: Mapping[str, str] = {
    **IGNORED_IN_CHAT,
    "betas": "what is supported needs no beta",
    "billing_policy": _ACCOUNT,
    "cache_control": _OWN_CACHE,
    "diagnostics": _ACCOUNT,
    "fallback_credit_token": _ACCOUNT,
    "fallbacks": "one model answers",
    "speed": _ACCOUNT,
    "stream_options": "every stream ends with the usage",
    "user_profile_id": "nothing is kept about users",
    "workspace_id": _ACCOUNT,
}

IGNORED_IN_EMBEDDINGS: Mapping[str, str] = {name: _COMMON[name] for name in ("request_id", "rid", "user")}
IGNORED_IN_SCORES = IGNORED_IN_EMBEDDINGS
