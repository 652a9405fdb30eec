# SPDX-License-Identifier: Apache-2.0
"""A server whose operator chose the chat template and the parsers, and requests with templates of their own."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from openai import BadRequestError, OpenAI

from tests.support.scripted import ScriptedStack, scripted_stack

TEMPLATE = "<|im_start|>{% for m in messages %}[{{ m.content }}]{% endfor %}{{ tools | tojson }}"
TOOL = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, qwen3_tokenizer_dir: Path) -> Iterator[ScriptedStack]:
    folder = tmp_path_factory.mktemp("templates")
    file = tmp_path_factory.mktemp("own") / "own.jinja"
    file.write_text(TEMPLATE, encoding="utf-8")
    more = ["--chat-template", str(file), "--tool-call-parser", "llama3_json", "--reasoning-parser", "deepseek_r1"]
    more.append("--trust-request-chat-template")
    with scripted_stack("qwen3", qwen3_tokenizer_dir, folder, more=more) as running:
        yield running


@pytest.fixture
def client(served: ScriptedStack) -> OpenAI:
    return OpenAI(base_url=f"{served.stack.url}/v1", api_key="none", max_retries=0)


def test_the_operator_s_template_and_parsers(served: ScriptedStack, client: OpenAI) -> None:
    served.play({"contains": "<|im_start|>[Hello][", "text": '<think>hm</think>{"name": "clock", "parameters": {}}'})
    message = client.chat.completions.create(model="", messages=HELLO, tools=[TOOL]).choices[0].message
    assert message.reasoning_content == "hm"
    assert [(call.function.name, call.function.arguments) for call in message.tool_calls] == [("clock", "{}")]


def test_a_template_of_the_request(served: ScriptedStack, client: OpenAI) -> None:
    served.play({"contains": "Once: Hello", "text": "<think>hm</think>yes"}, {"text": "no"})
    extra = {"chat_template": "Once: {{ messages[0].content }}"}
    message = client.chat.completions.create(model="", messages=HELLO, extra_body=extra).choices[0].message
    assert (message.reasoning_content, message.content) == ("hm", "yes")
    url = f"{served.stack.url}/tokenize"
    tokens = httpx.post(url, json={"messages": HELLO, "return_token_strs": True, **extra}).json()["token_strs"]
    assert "".join(tokens).replace("Ġ", " ") == "Once: Hello"


def test_documents_and_verbosity(served: ScriptedStack, client: OpenAI) -> None:
    served.play({"contains": "[a][b]low", "text": "yes"}, {"text": "no"})
    prompt = {"documents": [{"text": "a"}, {"text": "b"}], "verbosity": "low"}
    template = "{% for one in documents %}[{{ one.text }}]{% endfor %}{{ verbosity }}"
    extra = {"chat_template": template, "return_token_ids": True, **prompt}
    answer = client.chat.completions.create(model="", messages=HELLO, extra_body=extra)
    assert answer.choices[0].message.content == "yes"
    url = f"{served.stack.url}/tokenize"
    tokens = httpx.post(url, json={"messages": HELLO, "chat_template": template, **prompt}).json()["tokens"]
    assert answer.model_extra is not None and answer.model_extra["prompt_token_ids"] == tokens
    with pytest.raises(BadRequestError) as error:  # the operator's template takes none
        client.chat.completions.create(model="", messages=HELLO, extra_body=prompt)
    assert error.value.param == "documents"


def test_what_it_raises_is_the_client_s_error(client: OpenAI) -> None:
    for template in ("{{ raise_exception('Not so.') }}", "{% if %}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}"):
        with pytest.raises(BadRequestError) as error:
            client.chat.completions.create(model="", messages=HELLO, extra_body={"chat_template": template})
        assert error.value.param == "chat_template"
