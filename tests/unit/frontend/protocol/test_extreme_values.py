# SPDX-License-Identifier: Apache-2.0
"""Every field with every extreme value: an answer from sound tensors, or a 4xx that names the field."""

import json
import math
import struct
from typing import Any

import pytest

from common.sampling import INT32_MAX, SAMPLING
from frontend.endpoints.responses_input import SAME
from frontend.protocol.chat import ChatBody
from frontend.protocol.completions import CompletionBody
from frontend.protocol.refused import REFUSED_IN_CHAT, REFUSED_IN_COMPLETIONS
from frontend.protocol.tokenize import DetokenizeBody, TokenizeTextBody
from tests.fakes.frontend_server import CHAT, HELLO, Serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

COMPLETIONS, RESPONSES = "/v1/completions", "/v1/responses"
TOKENIZE, DETOKENIZE = "/tokenize", "/detokenize"
SOUND: dict[str, dict[str, Any]] = {
    CHAT: HELLO,
    COMPLETIONS: {"prompt": "Hi"},
    RESPONSES: {"input": "Hi"},
    TOKENIZE: {"prompt": "Hi"},
    DETOKENIZE: {"tokens": [1]},
}

# As JSON text, because Python has no value for some of them. The largest and smallest floats of 32 bits are among them.
NUMBERS = [
    "0",
    "-0",
    "0.0",
    "-0.0",
    "1",
    "1.0",
    "-1",
    "-1.0",
    "2",
    "5",
    "20",
    "21",
    "100",
    "101",
    "0.5",
    "1e-5",
    "9.9e-6",
    "1e-6",
    "1e-7",
    "1e-30",
    "1.2e-38",
    "1e-38",
    "1e-45",
    "1e-46",
    "1e-50",
    "5e-324",
    "1e-400",
    "-1e-50",
    "3.4028234e38",
    "3.4028236e38",
    "1e39",
    "-1e39",
    "1.7976931348623157e308",
    "1e309",
    "-1e309",
    "0.1e1",
    "2e0",
    "1e3",
    "0.30000000000000004",
    "32767",
    "65536",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "NaN",
    "Infinity",
    "-Infinity",
]
LONG = "1" + "0" * 400
OTHERS = [
    "null",
    "true",
    "false",
    '""',
    '"0"',
    '"1"',
    '"NaN"',
    '"auto"',
    '"x"',
    '"\\u0000"',
    "[]",
    "{}",
    "[0]",
    "[-1]",
    "[1e-50]",
    "[NaN]",
    "[2147483648]",
    "[1.5]",
    "[null]",
    "[[]]",
    '[""]',
    '["x"]',
    "[true]",
    '{"x":1}',
    '{"":0}',
    '{"1":1e-50}',
    '{"1":1e39}',
    '{"1":-Infinity}',
    '{"1":101}',
    '{"2147483648":1}',
    '{"-1":1}',
    '{"1":null}',
    '{"1":[NaN]}',
    '{"type":"function"}',
    '{"type":"json_schema"}',
    '{"type":1e999}',
    '[{"role":"user","content":NaN}]',
]
# Python and orjson read both; orjson does not write them again.
DEEP = '{"a":' * 300 + "1" + "}" * 300
NESTED = [
    DEEP,
    f'{{"json":{DEEP}}}',
    f'{{"type":"json_schema","json_schema":{{"name":"x","schema":{DEEP}}}}}',
    f'{{"format":{{"type":"json_schema","name":"x","schema":{DEEP}}}}}',
    f'[{{"type":"function","name":"f","parameters":{DEEP}}}]',
    f'[{{"type":"function","function":{{"name":"f","parameters":{DEEP}}}}}]',
    f'[{{"role":"user","content":{DEEP}}}]',
]
VALUES = (*NUMBERS, LONG, f"[{LONG}]", *OTHERS, *NESTED)

# Fields of a response and what they are in a chat body, as whose fields they are checked.
RESPONSE_FIELDS = {
    *SAME,
    "input",
    "instructions",
    "max_output_tokens",
    "metadata",
    "reasoning",
    "text",
    "tool_choice",
    "tools",
}
FIELDS = [
    *((CHAT, name) for name in sorted({*ChatBody.model_fields, *REFUSED_IN_CHAT})),
    *((COMPLETIONS, name) for name in sorted({*CompletionBody.model_fields, *REFUSED_IN_COMPLETIONS})),
    *((RESPONSES, name) for name in sorted(RESPONSE_FIELDS)),
    *((TOKENIZE, name) for name in TokenizeTextBody.model_fields),
    *((DETOKENIZE, name) for name in DetokenizeBody.model_fields),
]


async def send(served: Serving, path: str, field: str, value: str) -> Any:
    """POST a sound body whose field has this JSON text."""
    fields = {name: json.dumps(sound) for name, sound in SOUND[path].items()} | {field: value}
    if field == "stream_options":
        fields["stream"] = "true"
    if field == "top_logprobs":
        fields["logprobs"] = "true"
    content = "{" + ",".join(f'"{name}":{text}' for name, text in fields.items()) + "}"
    return await served.http.post(path, content=content.encode())


@pytest.mark.parametrize(("path", "field"), FIELDS)
async def test_an_extreme_value_is_answered_or_refused_by_name(served: Serving, path: str, field: str) -> None:
    for value in VALUES:
        calls = len(served.triton.calls)
        response = await send(served, path, field, value)
        sent = f"{field}={value[:40]}: {response.text[:300]}"
        if response.status_code == 200:
            assert '"error":{' not in response.text, sent
            for call in served.triton.calls[calls:]:
                check_inputs(call.inputs, sent)
        else:
            assert 400 <= response.status_code < 500, sent
            param = response.json()["error"]["param"]
            assert param is not None and param.split(".")[0].split("[")[0] == field, sent


def check_inputs(inputs: dict[str, list[Any]], sent: str) -> None:
    """Check that an engine can compute with the tensors of a request: FP32 values as Triton hands them on."""
    floats = [value for values in inputs.values() for value in values if isinstance(value, float)]
    assert all(map(math.isfinite, floats)), sent
    # Neither a division by 0 nor an overflow of a logit; 0 is never left to the engine's taste.
    temperature, top_p = inputs.get("temperature", [1.0])[0], inputs.get("runtime_top_p", inputs.get("top_p", [1.0]))[0]
    if temperature < 1e-6:
        assert temperature == 0 and inputs["top_k"] == [1], sent
    assert 1e-7 < top_p <= 1, sent
    assert inputs.get("repetition_penalty", [1.0])[0] >= fp32(SAMPLING["repetition_penalty"].limits.low), sent
    assert all(0 <= value <= INT32_MAX for name in ("max_tokens", "min_tokens") for value in inputs.get(name, [1])), (
        sent
    )


def fp32(value: float) -> float:
    (rounded,) = struct.unpack("<f", struct.pack("<f", value))
    return float(rounded)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("temperature", value) for value in ("0", "-0.0", "1e-400", "1e-50", "1e-45", "1e-38", "9.9e-6")),
        *(("top_p", value) for value in ("0", "-0.0", "1e-400", "1e-50", "1e-45", "1e-38", "9.9e-7")),
    ],
)
async def test_a_tiny_value_means_the_most_likely_token(served: Serving, path: str, field: str, value: str) -> None:
    assert (await send(served, path, field, value)).status_code == 200
    (call,) = served.triton.calls
    assert (call.inputs["top_k"], call.inputs["top_p"]) == ([1], [1.0])
    assert call.inputs.get("temperature") == ([0.0] if field == "temperature" else None)


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
@pytest.mark.parametrize(("field", "value"), [("temperature", "1e-5"), ("top_p", "1e-6")])
async def test_a_small_value_is_sent_as_it_is(served: Serving, path: str, field: str, value: str) -> None:
    assert (await send(served, path, field, value)).status_code == 200
    (call,) = served.triton.calls
    assert call.inputs[field] == [fp32(float(value))] and "top_k" not in call.inputs


@pytest.mark.parametrize("value", ["0", "1e-400", "1e-50", "1e-45", "1e-38", "9e-7", "10.1"])
async def test_a_repetition_penalty_that_no_logit_survives_is_refused(served: Serving, value: str) -> None:
    response = await send(served, CHAT, "repetition_penalty", value)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "repetition_penalty")


async def test_the_search_for_the_field_is_no_burden(served: Serving) -> None:
    """A body that is not JSON for other reasons, nested deeply or large, is only called so."""
    for content in (b'{"a":' * 100_000, b'{"messages":NaN' + b" " * 2**20 + b"}", b"[NaN]", b"NaN", b'{"A b":NaN}'):
        response = await served.http.post(CHAT, content=content)
        assert (response.status_code, response.json()["error"]["param"]) == (400, None)
