# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document of the frontend.

Bodies are read by hand, so FastAPI knows nothing of them: the document is put together here from the models that
validate the bodies, the tables of errors, and the shapes of answers in `openapi_answers`.
"""

import orjson
from fastapi import APIRouter, Response
from pydantic.json_schema import models_json_schema

from common.chat.media import PART_OPTIONS
from common.chat.messages import DETAILS, ROLES
from common.chat.parts import Kind
from frontend import __version__
from frontend.endpoints import openapi_messages
from frontend.endpoints.admin import ACTIONS
from frontend.endpoints.openapi_answers import ANSWERS, HEALTH, Schema, ref
from frontend.endpoints.responses_input import INCLUDABLE, SAME, SUMMARIES, TRUNCATIONS
from frontend.endpoints.stored_responses import DEFAULT_LISTED, MAX_LISTED
from frontend.errors import KINDS, REFUSALS
from frontend.protocol.adapters import LoadAdapterBody, UnloadAdapterBody
from frontend.protocol.chat import MAX_MESSAGES, ChatBody
from frontend.protocol.completions import CompletionBody
from frontend.protocol.embeddings import EmbeddingBody, RerankBody, ScoreBody
from frontend.protocol.tokenize import DetokenizeBody, TokenizeChatBody, TokenizeTextBody

BODIES = (
    *(ChatBody, CompletionBody, TokenizeTextBody, TokenizeChatBody, DetokenizeBody),
    *(LoadAdapterBody, UnloadAdapterBody),
    *(EmbeddingBody, RerankBody, ScoreBody),
)
JSON = "application/json"
EVENTS = "text/event-stream"
METRICS = "text/plain"

router = APIRouter()


@router.get("/openapi.json")
async def openapi() -> Response:
    """Return the document, which is built once, at import."""
    return Response(_DOCUMENT, media_type=JSON)


def document() -> Schema:
    """Build the OpenAPI 3.1 document as JSON values."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Triton Chat",
            "version": __version__,
            "description": "The OpenAI API on NVIDIA Triton. Fields that are not named here are ignored, unless "
            "they would change the answer: those are refused by name. Null is the same as absent.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"key": []}, {"api_key": []}],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer"},
                "api_key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _paths() -> Schema:
    models = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    served = {"name": "model", "in": "query", "schema": {"type": "string"}}
    action = {"name": "action", "in": "path", "required": True, "schema": {"enum": list(ACTIONS)}}
    response = {"name": "response_id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    counted = {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "default": DEFAULT_LISTED}
    listing = [
        {"name": "limit", "in": "query", "schema": counted},
        {"name": "order", "in": "query", "schema": {"enum": ["asc", "desc"], "default": "desc"}},
        {"name": "after", "in": "query", "schema": TEXT},
    ]
    change = _get("Load, unload or reload a model, which takes as long as it takes", ref("AdminModels"))["get"]
    tokenize = {"anyOf": [ref("TokenizeChatBody"), ref("TokenizeTextBody")]}
    return {
        "/v1/chat/completions": _post("Answer a chat", ref("ChatBody"), "ChatCompletion", "one ChatCompletionChunk"),
        "/v1/completions": _post("Complete a text", ref("CompletionBody"), "Completion", "one Completion"),
        "/v1/responses": _post("Answer a chat in the form of responses", ref("ResponseBody"), "Response", "one event"),
        "/v1/responses/{response_id}": {
            **_get("A stored response", ref("Response")),
            "delete": _get("Delete a stored response", ref("DeletedResponse"))["get"],
            "parameters": [response],
        },
        "/v1/responses/{response_id}/input_items": {
            **_get("The items that led to a stored response", ref("InputItems")),
            "parameters": [response, *listing],
        },
        "/v1/messages": _post(
            "Answer a chat in the form of Anthropic's Messages API",
            ref("MessageBody"),
            "AnswerMessage",
            "one event",
            error="MessageError",
        ),
        "/v1/messages/count_tokens": _post(
            "The tokens of a prompt", ref("CountTokensBody"), "TokenCount", error="MessageError"
        ),
        "/v1/embeddings": _post("Embed texts", ref("EmbeddingBody"), "Embeddings"),
        **dict.fromkeys(
            ("/v1/rerank", "/v2/rerank", "/rerank"),
            _post("Sort documents by their relevance for a query", ref("RerankBody"), "Ranking"),
        ),
        **dict.fromkeys(("/v1/score", "/score"), _post("Score pairs of texts", ref("ScoreBody"), "Scores")),
        "/v1/models": _get("The loaded models, under each of their names", ref("ModelList")),
        "/v1/models/{name}": _get("One of them", ref("Model")) | {"parameters": [models]},
        "/tokenize": _post("The token ids of a text or a chat", tokenize, "Tokens"),
        "/detokenize": _post("The text of token ids", ref("DetokenizeBody"), "Text"),
        "/v1/load_lora_adapter": _adapter("Load a LoRA adapter, with the admin key", "LoadAdapterBody"),
        "/v1/unload_lora_adapter": _adapter("Unload a LoRA adapter, with the admin key", "UnloadAdapterBody"),
        "/admin/models": _get("The models of the launcher and their states", ref("AdminModels")),
        "/admin/models/{name}/{action}": {"post": change, "parameters": [models, action]},
        "/health": _health("The same as /health/ready") | {"parameters": [served]},
        "/health/ready": _health("Whether Triton and a model, or the named one, can serve") | {"parameters": [served]},
        "/health/live": _get("Whether this process serves HTTP", HEALTH),
        "/version": _get("The versions of this server, the engine, Triton, CUDA and the GPUs", ref("Version")),
        "/metrics": _get("Metrics for Prometheus; with --metrics-port only at that port", {"type": "string"}, METRICS),
        "/metrics/vllm": _get("The load under vLLM's names, for endpoint pickers", {"type": "string"}, METRICS),
        "/openapi.json": _get("This document", {"type": "object"}),
    }


def _post(summary: str, body: Schema, answer: str, event: str | None = None, *, error: str = "Error") -> Schema:
    """Describe a POST endpoint. event: the content of each server-sent event, if the answer can be streamed."""
    content: Schema = {JSON: {"schema": ref(answer)}}
    if event:
        # For a stream of events, tools read the schema as that of one event.
        about = f"With stream: {event} or an Error as JSON; [DONE] ends every stream but that of a message"
        one: Schema = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
        content[EVENTS] = {"schema": one | {"description": about}}
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {JSON: {"schema": body}}},
            "responses": {"200": _answer("The answer", content), **_errors(error)},
        }
    }


def _adapter(summary: str, body: str) -> Schema:
    """Describe a POST endpoint that is answered by a line of text."""
    about = _post(summary, ref(body), "Text")
    about["post"]["responses"]["200"] = _answer("What was done", {"text/plain": {"schema": TEXT}})
    return about


def _get(summary: str, schema: Schema, media_type: str = JSON) -> Schema:
    answer = _answer("The answer", {media_type: {"schema": schema}})
    return {"get": {"summary": summary, "responses": {"200": answer, **_errors()}}}


def _health(summary: str) -> Schema:
    about = _get(summary, ref("Readiness"))
    about["get"]["responses"]["503"] = _answer("Not ready", {JSON: {"schema": ref("Readiness")}})
    return about


def _errors(body: str = "Error") -> Schema:
    """Describe every status of the tables of errors. body: the schema of an error."""
    codes: dict[int, list[str]] = {}
    for shape in (*KINDS.values(), *REFUSALS.values()):
        codes.setdefault(shape.status, []).append(shape.code or shape.type)
    return {
        str(status): _answer(", ".join(dict.fromkeys(names)), {JSON: {"schema": ref(body)}})
        for status, names in sorted(codes.items())
    }


def _answer(description: str, content: Schema) -> Schema:
    named = {"description": "The request's own id if it sent one", "schema": {"type": "string"}}
    return {"description": description, "headers": {"X-Request-Id": named}, "content": content}


def _schemas() -> Schema:
    made = models_json_schema([(body, "validation") for body in BODIES], ref_template="#/components/schemas/{model}")
    schemas: Schema = made[1]["$defs"]
    for body in ("ChatBody", "TokenizeChatBody"):
        # Messages are validated by a function (common.chat.messages), not by a model.
        messages = {"type": "array", "minItems": 1, "maxItems": MAX_MESSAGES, "items": ref("Message")}
        schemas[body]["properties"]["messages"] = messages
    chat = schemas["ChatBody"]["properties"]
    own = {"ResponseBody": _response_body(chat), **openapi_messages.bodies(chat)}
    return schemas | _MESSAGES | ANSWERS | openapi_messages.ANSWERS | own


def _response_body(chat: Schema) -> Schema:
    """Describe the body that `frontend.endpoints.responses_input` reads; the fields that it passes on are a chat's."""
    named_tool = {"type": "object", "required": ["type", "name"], "properties": {"type": {"const": "function"}}}
    allowed = {"type": {"const": "allowed_tools"}, "mode": {"enum": ["auto", "required"]}}
    allowed_tools = {"type": "object", "required": ["type", "mode", "tools"], "properties": allowed}
    text_format = {"type": "object", "required": ["type"], "properties": {"type": {"enum": list(_TEXT_FORMATS)}}}
    reasoning = {"effort": chat["reasoning_effort"], "summary": _or_null({"enum": list(SUMMARIES)})}
    return {
        "type": "object",
        "required": ["input"],
        "properties": {
            **{name: chat[name] for name in SAME},
            "input": {"anyOf": [TEXT, {"type": "array", "items": {"type": "object"}}]},
            "instructions": _or_null(TEXT),
            "max_output_tokens": chat["max_tokens"],
            "tools": _or_null({"type": "array", "items": {"type": "object", "required": ["type", "name"]}}),
            "tool_choice": _or_null({"anyOf": [{"enum": ["auto", "none", "required"]}, named_tool, allowed_tools]}),
            "text": _or_null({"type": "object", "properties": {"format": text_format, "verbosity": chat["verbosity"]}}),
            "include": _or_null({"type": "array", "items": {"enum": list(INCLUDABLE)}}),
            "top_logprobs": chat["top_logprobs"],
            "metadata": _or_null({"type": "object", "additionalProperties": TEXT}),
            "store": _or_null({"type": "boolean"}),
            "previous_response_id": _or_null(TEXT),
            "reasoning": _or_null({"type": "object", "properties": reasoning}),
            "truncation": _or_null({"enum": list(TRUNCATIONS)}),
        },
    }


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _part(kind: str, value: Schema) -> Schema:
    return {"type": "object", "required": ["type", kind], "properties": {"type": {"const": kind}, kind: value}}


def _url(**more: Schema) -> Schema:
    return {"anyOf": [TEXT, {"type": "object", "required": ["url"], "properties": {"url": TEXT, **more}}]}


def _options(kind: Kind) -> dict[str, Schema]:
    numbers = {name: "number" if name == "fps" else "integer" for name in PART_OPTIONS[kind]}
    return {name: _or_null({"type": number}) for name, number in numbers.items()}


TEXT: Schema = {"type": "string"}
_TEXT_FORMATS = ("text", "json_object", "json_schema")
_MESSAGES: Schema = {
    "Message": {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"enum": list(ROLES)},
            "content": {"anyOf": [TEXT, {"type": "array", "items": ref("ContentPart")}, {"type": "null"}]},
            "name": _or_null(TEXT),
            "tool_call_id": _or_null(TEXT),
            "tool_calls": _or_null({"type": "array", "items": ref("ToolCall")}),
            "reasoning_content": _or_null(TEXT),
        },
    },
    "ContentPart": {
        "anyOf": [
            _part("text", TEXT),
            _part("refusal", TEXT),
            _part("image_url", _url(detail=_or_null({"enum": list(DETAILS)}), **_options("image"))),
            _part("video_url", _url(**_options("video"))),
        ]
    },
    "ToolCall": {
        "type": "object",
        "required": ["function"],
        "properties": {
            "id": _or_null(TEXT),
            "type": {"const": "function"},
            "function": {
                "type": "object",
                "required": ["name"],
                "properties": {"name": TEXT, "arguments": {"anyOf": [TEXT, {"type": "object"}]}},
            },
        },
    },
}

_DOCUMENT = orjson.dumps(document())
