# SPDX-License-Identifier: Apache-2.0
"""Invalid requests through the real stack: the right status, OpenAI's error object, a helpful message."""

import pytest

HELLO = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}

WRONG = [
    ({}, 400, "messages"),
    ({"messages": []}, 400, "messages"),
    ({"messages": "hello"}, 400, "messages"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "messages"),
    ({"messages": [{"role": "user"}]}, 400, "messages"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, 400, "messages"),
    (HELLO | {"model": "no-such-model"}, 404, "model"),
    (HELLO | {"max_tokens": 0}, 400, "max_tokens"),
    (HELLO | {"max_tokens": 10_000_000}, 400, None),
    (HELLO | {"temperature": -1}, 400, "temperature"),
    (HELLO | {"temperature": "warm"}, 400, "temperature"),
    (HELLO | {"temperature": 2.5}, 400, "temperature"),
    (HELLO | {"top_p": 1.5}, 400, "top_p"),
    (HELLO | {"repetition_penalty": 1e-30}, 400, "repetition_penalty"),
    (HELLO | {"n": 0}, 400, "n"),
    (HELLO | {"stop": ["x"] * 1025}, 400, "stop"),
    (HELLO | {"logit_bias": {"999999999": 1}}, 400, "logit_bias"),
    (HELLO | {"top_logprobs": 3}, 400, "top_logprobs"),
    (HELLO | {"tool_choice": "required"}, 400, "tool_choice"),
    (HELLO | {"response_format": {"type": "poem"}}, 400, "response_format"),
    (
        HELLO | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": 5}}}},
        400,
        None,
    ),
    (HELLO | {"guided_regex": "(unclosed"}, 400, None),
    (HELLO | {"messages": [{"role": "user", "content": "word " * 20000}]}, 400, None),
]


@pytest.mark.parametrize(("body", "status", "param"), WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_the_error_says_what_is_wrong(http, body, status, param, stream):
    response = http.post("/v1/chat/completions", json=body | {"stream": stream})
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and len(error["message"]) < 2000
    assert error["code"] is None or isinstance(error["code"], str)
    if param is not None:
        assert (error["param"] or "").startswith(param), error


@pytest.mark.python_engine("the backend knows no such error")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_more_min_tokens_than_are_left(http, stream):
    response = http.post(
        "/v1/chat/completions", json={**HELLO, "max_tokens": None, "min_tokens": 2**31 - 1, "stream": stream}
    )
    assert response.status_code == 400 and response.json()["error"]["param"] == "min_tokens", response.text


def test_the_context_is_named(http):
    response = http.post(
        "/v1/chat/completions", json=HELLO | {"messages": [{"role": "user", "content": "word " * 20000}]}
    )
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_not_json(http):
    response = http.post("/v1/chat/completions", content=b"{not json", headers={"content-type": "application/json"})
    assert response.status_code == 400 and "error" in response.json()


@pytest.mark.parametrize("text", ["nul \0 inside", "emoji 🙂", "lone \ud800 surrogate"])
def test_odd_text_is_not_a_server_error(http, text):
    import json

    body = json.dumps(HELLO | {"messages": [{"role": "user", "content": text}]}).encode()
    response = http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code in (200, 400), response.text


def test_the_server_still_answers(http):
    assert http.post("/v1/chat/completions", json=HELLO).status_code == 200


@pytest.mark.parametrize("fields", [{"temperature": 1e-50}, {"temperature": 9e-6}, {"top_p": 1e-50}, {"top_p": 9e-7}])
def test_a_tiny_value_means_the_most_likely_token(http, fields):
    """In FP32 some of these are 0, which engines refuse or read as another meaning."""

    def text(fields):
        response = http.post("/v1/chat/completions", json=HELLO | {"max_tokens": 8} | fields)
        assert response.status_code == 200, response.text
        return response.json()["choices"][0]["message"]["content"]

    assert text(fields) == text({"temperature": 0})


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 1e-5},
        {"top_p": 1e-6},
        {"min_p": 1e-50},
        {"min_p": 1},
        {"repetition_penalty": 0.01},
        {"repetition_penalty": 10},
        {"top_k": 2**31 - 1},
        {"seed": 2**64 - 1},
        {"seed": -(2**63)},
    ],
)
def test_the_ends_of_a_range_are_answered(http, fields):
    response = http.post("/v1/chat/completions", json=HELLO | {"max_tokens": 8} | fields)
    assert response.status_code == 200, response.text
