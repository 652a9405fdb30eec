# SPDX-License-Identifier: Apache-2.0
"""Guided decoding in the real engine: a random Qwen3 writes nonsense, so any valid form is enforced."""

import json
from collections.abc import Iterator

import pytest
from openai import BadRequestError, OpenAI
from tokenizers import Tokenizer

from scripts.launcher import FREE_PORTS
from tests.support.checkpoints import make_checkpoint
from tests.support.passing_stack import passing_stack

SCHEMA = {
    "type": "object",
    "properties": {
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
        "days": {"type": "integer", "enum": [1, 2]},
    },
    "required": ["unit", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "get_postcode", "parameters": SCHEMA}},
]
HELLO = [{"role": "user", "content": "Hello!"}]
pytestmark = pytest.mark.python_engine("a script follows no guide; their refusal is in test_trtllm")


@pytest.fixture(scope="module")
def client(tmp_path_factory, qwen3_tokenizer_dir) -> Iterator[OpenAI]:
    folder = make_checkpoint("qwen3", qwen3_tokenizer_dir, tmp_path_factory.mktemp("guides") / "qwen3")
    logs = ["--log-dir", str(tmp_path_factory.mktemp("logs"))]
    with passing_stack([str(folder), "--dtype", "float32", "--max-model-len", "2048", *logs, *FREE_PORTS]) as running:
        yield OpenAI(base_url=f"{running.url}/v1", api_key="unused", timeout=120, max_retries=0)


@pytest.fixture(scope="module")
def no_blanks(qwen3_tokenizer_dir) -> dict[str, int]:
    """A bias against blank tokens: JSON allows any number of them, and a random model would write nothing else."""
    tokenizer = Tokenizer.from_file(str(qwen3_tokenizer_dir / "tokenizer.json"))
    texts = tokenizer.decode_batch([[token] for token in range(151_643)])
    return {str(token): -100 for token, text in enumerate(texts) if text and not text.strip()}


def ask(client: OpenAI, *, stream: bool = False, thinking: bool = False, **request):
    request |= {"messages": HELLO, "max_tokens": 400, "temperature": 0, "model": ""}
    request["extra_body"] = request.get("extra_body", {}) | {"enable_thinking": thinking}
    if not stream:
        return client.chat.completions.create(**request).choices[0]
    with client.chat.completions.stream(**request) as events:
        return events.get_final_completion().choices[0]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_a_named_tool_is_called_by_its_schema(client, stream, no_blanks):
    choice = {"type": "function", "function": {"name": "get_postcode"}}
    # A response format beside it, as some clients send, does not change the call.
    other = {"type": "json_schema", "json_schema": {"name": "other", "schema": {"type": "object"}}}
    answer = ask(client, stream=stream, tools=TOOLS, tool_choice=choice, response_format=other, logit_bias=no_blanks)
    [call] = answer.message.tool_calls
    assert call.function.name == "get_postcode"
    arguments = json.loads(call.function.arguments)
    assert arguments["unit"] in ("celsius", "fahrenheit") and arguments["days"] in (1, 2)
    assert answer.finish_reason == "stop"


def test_a_required_call_is_made(client, no_blanks):
    answer = ask(client, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, logit_bias=no_blanks)
    [call] = answer.message.tool_calls
    assert call.function.name in ("get_weather", "get_postcode")
    assert set(json.loads(call.function.arguments)) == {"unit", "days"}
    assert answer.finish_reason == "tool_calls"


def test_no_call_is_made(client):
    answer = ask(client, tools=TOOLS, tool_choice="none")
    assert not answer.message.tool_calls and answer.message.content


def test_a_schema_holds(client, no_blanks):
    response_format = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    assert set(json.loads(ask(client, response_format=response_format, logit_bias=no_blanks).message.content)) == {
        "unit",
        "days",
    }


@pytest.mark.parametrize(
    ("guide", "allowed"),
    [
        ({"guided_choice": ["yes", "不"]}, {"yes", "不"}),
        ({"guided_regex": "(cat|dog)[0-3]"}, {f"{word}{digit}" for word in ("cat", "dog") for digit in "0123"}),
        ({"guided_grammar": 'root ::= "up" | "down"'}, {"up", "down"}),
        ({"structured_outputs": {"choice": ["left", "right"]}}, {"left", "right"}),
    ],
    ids=["choice", "regex", "grammar", "structured_outputs"],
)
def test_other_guides_hold(client, guide, allowed):
    assert ask(client, extra_body=guide).message.content in allowed


@pytest.mark.parametrize(
    "fields",
    [
        {"extra_body": {"guided_regex": "(unclosed"}},
        {"extra_body": {"guided_grammar": "root ::= ("}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "nothing"}}}},
    ],
    ids=["regex", "grammar", "schema"],
)
def test_what_the_engine_cannot_compile_is_refused(client, fields):
    with pytest.raises(BadRequestError) as refused:
        ask(client, **fields)
    assert len(refused.value.message) > 20
