# SPDX-License-Identifier: Apache-2.0
"""Text chat on the real model with the official client."""

import asyncio

import pytest

FRANCE = [{"role": "user", "content": "Please name the capital of France."}]
COUNT = [{"role": "user", "content": "Count from one to fifty in words."}]


def say_exactly(text: str) -> dict:
    """Request fields that make any model answer this text: guided decoding allows no other."""
    return {"extra_body": {"guided_choice": [text]}}


def streamed(client, **request) -> tuple[str, list]:
    chunks = list(client.chat.completions.create(stream=True, **request))
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices), chunks


def test_a_whole_answer(client):
    answer = client.chat.completions.create(model="", messages=FRANCE, temperature=0)
    assert "Paris" in answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == 37
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-")


def test_a_streamed_answer_is_the_whole_one(client):
    whole = client.chat.completions.create(model="qwen2", messages=FRANCE, temperature=0)
    text, chunks = streamed(
        client, model="qwen2", messages=FRANCE, temperature=0, stream_options={"include_usage": True}
    )
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert len(chunks) > 5, "the answer came in one piece"


def test_the_clients_own_accumulator(client):
    with client.chat.completions.stream(model="qwen2", messages=FRANCE, temperature=0) as stream:
        final = stream.get_final_completion()
    assert "Paris" in final.choices[0].message.content


async def test_the_async_client(async_client):
    whole = await async_client.chat.completions.create(model="qwen2", messages=FRANCE, temperature=0)
    stream = await async_client.chat.completions.create(model="qwen2", messages=FRANCE, temperature=0, stream=True)
    text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    assert text == whole.choices[0].message.content and "Paris" in text


@pytest.mark.parametrize("stream", [False, True])
def test_length_ends_an_answer(client, stream):
    request = {"model": "qwen2", "messages": COUNT, "temperature": 0, "max_tokens": 7}
    if stream:
        _, chunks = streamed(client, **request)
        assert chunks[-1].choices[0].finish_reason == "length"
    else:
        answer = client.chat.completions.create(**request)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 7


@pytest.mark.python_engine("the C++ backend takes no such list")
def test_allowed_tokens(client):
    one, two = (
        client.post("/../tokenize", body={"prompt": text}, cast_to=dict[str, list[int]])["tokens"][0]
        for text in (" yes", " no")
    )
    answer = client.chat.completions.create(
        model="", messages=FRANCE, max_tokens=6, extra_body={"allowed_token_ids": [one, two], "ignore_eos": True}
    )
    assert set(answer.choices[0].message.content.split()) <= {"yes", "no"}


@pytest.mark.python_engine("the C++ backend has no salt")
def test_prompts_with_different_salts_share_no_cache(client):
    def cached(**fields) -> int:
        prompt = "A prompt of its own, long enough for several blocks of the cache. " * 30
        answer = client.completions.create(model="", prompt=prompt, max_tokens=1, extra_body=fields)
        return answer.usage.prompt_tokens_details.cached_tokens

    assert [cached(cache_salt="a"), cached(cache_salt="b"), cached()] == [0, 0, 0]
    assert min(cached(cache_salt="a"), cached(cache_salt="b"), cached()) > 0


@pytest.mark.python_engine("the guide alone makes the model say this")
@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_across_tokens(client, stream):
    """The stop string begins and ends inside tokens, so no token id could find it."""
    text = "one banana, two bananas, three"
    request = {"model": "qwen2", "messages": COUNT, "stop": ["nanas, th"], **say_exactly(text)}
    if stream:
        text, chunks = streamed(client, **request)
        reason = chunks[-1].choices[0].finish_reason
    else:
        answer = client.chat.completions.create(**request)
        text, reason = answer.choices[0].message.content, answer.choices[0].finish_reason
    assert text == "one banana, two ba"
    assert reason == "stop"


def test_a_stop_string_frees_the_engine(client, stack):
    from tests.support.waiting import running_requests, wait_until

    answer = client.chat.completions.create(
        model="qwen2", messages=COUNT, temperature=0, stop=["e"], max_tokens=2000, extra_body={"ignore_eos": True}
    )
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens < 50
    wait_until(lambda: running_requests(stack) == 0, "the engine ends a request whose stop string matched", 20)


@pytest.mark.python_engine("the guide alone makes the model say this")
@pytest.mark.parametrize(
    "text", ["你好，我是一个语言模型。", "naïve café 🙂👩‍👩‍👧 日本語 العربية", "  two spaces\n\n\tand a tab"]
)
def test_any_script_streams_intact(client, text):
    whole = client.chat.completions.create(model="qwen2", messages=FRANCE, **say_exactly(text))
    pieces, chunks = streamed(client, model="qwen2", messages=FRANCE, **say_exactly(text))
    assert whole.choices[0].message.content == pieces == text
    assert "\ufffd" not in "".join(c.choices[0].delta.content or "" for c in chunks)


@pytest.mark.python_engine("the guide alone makes the model say this")
async def test_32_requests_at_once_each_get_their_own_answer(async_client):
    async def ask(number: int, stream: bool) -> str:
        request = {"model": "qwen2", "messages": FRANCE, **say_exactly(f"The number is {number}, no other.")}
        if not stream:
            return (await async_client.chat.completions.create(**request)).choices[0].message.content
        chunks = await async_client.chat.completions.create(stream=True, **request)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])

    answers = await asyncio.gather(*[ask(number, stream=number % 2 == 0) for number in range(32)])
    assert answers == [f"The number is {number}, no other." for number in range(32)]


@pytest.mark.python_engine("a script is not sampled")
def test_a_seed_repeats_and_another_differs(client):
    def sample(seed: int) -> str:
        answer = client.chat.completions.create(model="qwen2", messages=COUNT, temperature=2, seed=seed, max_tokens=24)
        return answer.choices[0].message.content

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


@pytest.mark.python_engine("top_logprobs is an extension")
def test_logprobs_are_those_of_the_answer(client):
    answer = client.chat.completions.create(
        model="qwen2", messages=FRANCE, temperature=0, logprobs=True, top_logprobs=3
    )
    entries = answer.choices[0].logprobs.content
    assert len(entries) == answer.usage.completion_tokens
    assert "".join(e.token for e in entries).startswith(answer.choices[0].message.content)
    for entry in entries:
        assert entry.logprob <= 0 and len(entry.top_logprobs) == 3
        assert entry.top_logprobs[0].logprob == pytest.approx(entry.logprob), "greedy takes the likeliest"


def test_completions(client):
    answer = client.completions.create(model="qwen2", prompt="The capital of France is", temperature=0, max_tokens=4)
    assert answer.choices[0].text.startswith(" Paris")
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.python_engine("a script knows no bias")
def test_logit_bias_and_bad_words(client):
    plain = client.completions.create(model="qwen2", prompt="The capital of France is", temperature=0, max_tokens=1)
    assert plain.choices[0].text == " Paris"
    banned = client.completions.create(
        model="qwen2", prompt="The capital of France is", temperature=0, max_tokens=1, logit_bias={"7042": -100}
    )
    worded = client.completions.create(
        model="qwen2",
        prompt="The capital of France is",
        temperature=0,
        max_tokens=1,
        extra_body={"bad_words": ["Paris"]},
    )
    assert " Paris" not in (banned.choices[0].text, worded.choices[0].text)


@pytest.mark.python_engine("a script follows no guide")
def test_json_schema_holds(client):
    import json

    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer"}},
        "required": ["city", "people"],
        "additionalProperties": False,
    }
    answer = client.chat.completions.create(
        model="qwen2",
        messages=FRANCE,
        temperature=0,
        max_tokens=100,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema, "strict": True}},
    )
    value = json.loads(answer.choices[0].message.content)
    assert set(value) == {"city", "people"} and isinstance(value["people"], int)
