# SPDX-License-Identifier: Apache-2.0
"""Several models behind one address, through a whole stack: two scripted models and two frontend processes."""

from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI

from tests.support.scripted import PAIR, PAIR_ALIAS, ScriptedPair
from tests.support.waiting import PATIENCE_S

FIRST, SECOND = PAIR
CHAT = {"messages": [{"role": "user", "content": "Hi"}]}
TRIES = 12  # connections, each of which goes to one of two processes


@pytest.fixture(scope="module")
def pair(scripted_models: ScriptedPair) -> ScriptedPair:
    scripted_models.play(FIRST, {"text": "I am the first."})
    scripted_models.play(SECOND, {"text": "I am the second."})
    return scripted_models


def ask(url: str, model: str, **fields: Any) -> httpx.Response:
    """Ask with a connection of its own."""
    return httpx.post(f"{url}/v1/chat/completions", json=CHAT | {"model": model} | fields, timeout=PATIENCE_S)


def says(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    text: str = response.json()["choices"][0]["message"]["content"]
    return text


def test_the_requests_model_chooses(pair: ScriptedPair) -> None:
    url = pair.stack.url
    for name, text in ((FIRST, "I am the first."), (PAIR_ALIAS, "I am the first."), (SECOND, "I am the second.")):
        for _ in range(TRIES // 3):
            assert says(ask(url, name)) == text
        with OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=PATIENCE_S, max_retries=0) as client:
            assert client.completions.create(model=name, prompt="Hi").choices[0].text == text
            assert client.responses.create(model=name, input="Hi").output_text == text
            chunks = client.chat.completions.create(model=name, messages=CHAT["messages"], stream=True)
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
        tokens = httpx.post(f"{url}/tokenize", json={"model": name, "prompt": "Hi there"}, timeout=PATIENCE_S).json()
        back = httpx.post(f"{url}/detokenize", json={"model": name, "tokens": tokens["tokens"]}, timeout=PATIENCE_S)
        assert back.json() == {"prompt": "Hi there"}
    with OpenAI(base_url=f"{url}/v1", api_key="unused", timeout=PATIENCE_S, max_retries=0) as client:
        assert {model.id for model in client.models.list()} == {FIRST, PAIR_ALIAS, SECOND}
        with pytest.raises(NotFoundError, match="served: "):
            client.chat.completions.create(model="third", messages=CHAT["messages"])
    unnamed = httpx.post(f"{url}/v1/chat/completions", json=CHAT, timeout=PATIENCE_S)
    assert (unnamed.status_code, unnamed.json()["error"]["param"]) == (400, "model")
