# SPDX-License-Identifier: Apache-2.0
"""JSON schemas of the frontend's answers, for its OpenAPI document."""

from dataclasses import fields
from typing import Any

from common.models_state import STATES
from common.served_model import KINDS
from common.versions import Versions

Schema = dict[str, Any]


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: Schema, optional: Schema | None = None) -> Schema:
    return {"type": "object", "required": list(required), "properties": required | (optional or {})}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _or_null(*schemas: Schema) -> Schema:
    return {"anyOf": [*schemas, {"type": "null"}]}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
FINISH = _or_null({"enum": ["stop", "length", "tool_calls"]})
HEALTH = _object({"status": {"const": "live"}})

_HEAD: Schema = {"id": TEXT, "created": COUNT, "model": TEXT, "system_fingerprint": TEXT}
_TOKEN: Schema = {"token": TEXT, "logprob": _or_null(NUMBER), "bytes": _or_null(_list(COUNT))}
_LOGPROBS = _or_null(_object({"content": _list(_object(_TOKEN, {"top_logprobs": _list(_object(_TOKEN))}))}))
_COMPLETION_LOGPROBS = _or_null(
    _object(
        {
            "tokens": _list(TEXT),
            "token_logprobs": _list(_or_null(NUMBER)),
            "top_logprobs": _list(_or_null({"type": "object", "additionalProperties": NUMBER})),
            "text_offset": _list(COUNT),
        }
    )
)
_FUNCTION: Schema = {"name": TEXT, "arguments": TEXT}
_CALL = _object({"id": TEXT, "type": {"const": "function"}, "function": _object(_FUNCTION)})
_CALL_DELTA = _object({"index": COUNT, "function": _object({}, _FUNCTION)}, {"id": TEXT, "type": {"const": "function"}})
_PROMPT_USAGE = _object({"prompt_tokens": COUNT, "total_tokens": COUNT})
# Those of `return_token_ids` and `prompt_logprobs`, of a choice and of a prompt.
_TOKEN_IDS: Schema = {"token_ids": _list(COUNT)}
_PROMPT_TOKEN: Schema = {"logprob": NUMBER, "rank": _or_null(COUNT), "decoded_token": TEXT}
_PROMPT_IDS: Schema = {"prompt_token_ids": _list(COUNT)}
_OF_PROMPT: Schema = {
    **_PROMPT_IDS,
    "prompt_logprobs": _list(_or_null({"type": "object", "additionalProperties": _object(_PROMPT_TOKEN)})),
}
# With the header X-Request-Metrics.
_METRICS: Schema = {"metrics": ref("RequestMetrics")}
# Optional texts that the chunks and the messages of a chat have in common.
_ANSWER_TEXTS: Schema = {"reasoning_content": TEXT, "reasoning": TEXT}

ANSWERS: Schema = {
    "Error": _object(
        {
            "error": _object(
                {"message": {"type": "string", "maxLength": 500}, "type": TEXT, "param": _or_null(TEXT)}
                | {"code": _or_null(TEXT)}
            )
        }
    ),
    "Usage": _object(
        {"prompt_tokens": COUNT, "completion_tokens": COUNT, "total_tokens": COUNT},
        {
            "prompt_tokens_details": _object({"cached_tokens": COUNT}),
            "completion_tokens_details": _object({"reasoning_tokens": COUNT}),
        },
    ),
    "RequestMetrics": _object(
        {
            name: _or_null(NUMBER)
            for name in (
                *("queue_time_ms", "time_to_first_token_ms", "generation_time_ms", "mean_itl_ms"),
                *("tokens_per_second", "total_time_ms"),
            )
        }
    ),
    "ChatCompletion": _object(
        {
            **_HEAD,
            "object": {"const": "chat.completion"},
            "choices": _list(
                _object(
                    {
                        "index": COUNT,
                        "message": _object(
                            {"role": {"const": "assistant"}, "content": _or_null(TEXT), "refusal": {"type": "null"}},
                            _ANSWER_TEXTS | {"tool_calls": _list(_CALL)},
                        ),
                        "logprobs": _LOGPROBS,
                        "finish_reason": FINISH,
                    },
                    _TOKEN_IDS,
                )
            ),
            "usage": ref("Usage"),
        },
        _OF_PROMPT | _METRICS,
    ),
    "ChatCompletionChunk": _object(
        {
            **_HEAD,
            "object": {"const": "chat.completion.chunk"},
            "choices": _list(
                _object(
                    {
                        "index": COUNT,
                        "delta": _object(
                            {}, {"role": TEXT, "content": TEXT, **_ANSWER_TEXTS, "tool_calls": _list(_CALL_DELTA)}
                        ),
                        "logprobs": _LOGPROBS,
                        "finish_reason": FINISH,
                    },
                    _TOKEN_IDS,
                )
            ),
        },
        {"usage": _or_null(ref("Usage")), **_PROMPT_IDS, **_METRICS},
    ),
    "Completion": _object(
        {
            **_HEAD,
            "object": {"const": "text_completion"},
            "choices": _list(
                _object(
                    {"index": COUNT, "text": TEXT, "logprobs": _COMPLETION_LOGPROBS, "finish_reason": FINISH},
                    _TOKEN_IDS | _OF_PROMPT,
                )
            ),
        },
        {"usage": _or_null(ref("Usage")), **_METRICS},
    ),
    "Response": _object(
        {
            "id": TEXT,
            "object": {"const": "response"},
            "created_at": COUNT,
            "model": TEXT,
            "status": {"enum": ["in_progress", "completed", "incomplete", "failed"]},
            "incomplete_details": _or_null(_object({"reason": TEXT})),
            "output": _list(_object({"id": TEXT, "type": {"enum": ["message", "reasoning", "function_call"]}})),
            "usage": _or_null(
                _object(
                    {
                        "input_tokens": COUNT,
                        "input_tokens_details": _object({"cached_tokens": COUNT, "cache_write_tokens": COUNT}),
                        "output_tokens": COUNT,
                        "output_tokens_details": _object({"reasoning_tokens": COUNT}),
                        "total_tokens": COUNT,
                    }
                )
            ),
        },
        _METRICS,
    ),
    "DeletedResponse": _object({"id": TEXT, "object": {"const": "response"}, "deleted": {"const": True}}),
    "InputItems": _object(
        {
            "object": {"const": "list"},
            "data": _list(_object({"id": TEXT, "type": TEXT})),
            "first_id": _or_null(TEXT),
            "last_id": _or_null(TEXT),
            "has_more": {"type": "boolean"},
        }
    ),
    "Embeddings": _object(
        {
            "object": {"const": "list"},
            "data": _list(
                _object(
                    {
                        "object": {"const": "embedding"},
                        "index": COUNT,
                        "embedding": {"anyOf": [_list(NUMBER), {"type": "string", "contentEncoding": "base64"}]},
                    }
                )
            ),
            "model": TEXT,
            "usage": _PROMPT_USAGE,
        }
    ),
    "Ranking": _object(
        {
            "id": TEXT,
            "model": TEXT,
            "usage": _PROMPT_USAGE,
            "results": _list(
                _object({"index": COUNT, "relevance_score": NUMBER}, {"document": _object({"text": TEXT})})
            ),
        }
    ),
    "Scores": _object(
        {
            "id": TEXT,
            "object": {"const": "list"},
            "created": COUNT,
            "model": TEXT,
            "data": _list(_object({"object": {"const": "score"}, "index": COUNT, "score": NUMBER})),
            "usage": _PROMPT_USAGE,
        }
    ),
    "Model": _object(
        {
            "id": TEXT,
            "object": {"const": "model"},
            "created": COUNT,
            "owned_by": TEXT,
            "root": TEXT,
            "parent": _or_null(TEXT),
            "max_model_len": _or_null(COUNT),
            "kind": {"enum": list(KINDS)},
            "aliases": _list(TEXT),
            "modalities": _or_null(_list(TEXT)),
        },
        {"lora_task_id": COUNT},
    ),
    "ModelList": _object({"object": {"const": "list"}, "data": _list(ref("Model"))}),
    "AdminModels": _object(
        {
            "models": {
                "type": "object",
                "additionalProperties": _object(
                    {"state": {"enum": list(STATES)}, "reason": _or_null(TEXT)},
                    {"names": _list(TEXT), "kind": {"enum": list(KINDS)}},
                ),
            }
        },
        {"message": TEXT},
    ),
    "Tokens": _object(
        {"count": COUNT, "max_model_len": _or_null(COUNT), "tokens": _list(COUNT)}, {"token_strs": _list(TEXT)}
    ),
    "Text": _object({"prompt": TEXT}),
    "Readiness": _object(
        {
            "status": {"enum": ["ready", "not ready"]},
            "not_ready": _list(TEXT),
            "parts": {"type": "object", "additionalProperties": {"type": "boolean"}},
        },
        {"models": {"type": "object", "additionalProperties": {"enum": [*STATES, "not ready"]}}},
    ),
    "Version": _object({"version": TEXT} | {field.name: _or_null(TEXT) for field in fields(Versions)}),
}
