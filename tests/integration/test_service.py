# SPDX-License-Identifier: Apache-2.0
"""Models, health, and the requests of the Qwen2 document as its readers send them."""

import json


def test_models(client, http):
    assert {model.id for model in client.models.list()} == {"smollm2-135m-instruct", "qwen2"}
    assert client.models.retrieve("qwen2").id == "qwen2"
    missing = http.get("/v1/models/nothing")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"


def test_health(http):
    assert http.get("/health/live").status_code == 200
    assert http.get("/health/ready").status_code == 200


def test_the_qwen2_documents_curl(http, stack):
    """Its path has a double slash, and its text is Chinese."""
    body = {
        "model": "qwen2",
        "messages": [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": "你好，你是谁？"},
        ],
    }
    url = f"{stack.url}//v1/chat/completions"
    whole = http.post(url, json=body | {"max_tokens": 8})
    assert whole.status_code == 200
    assert whole.json()["choices"][0]["message"]["role"] == "assistant"
    with http.stream("POST", url, json=body | {"stream": True, "max_tokens": 8}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        data = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert data[-1] == "[DONE]"
    assert json.loads(data[0])["object"] == "chat.completion.chunk"


def test_tokenize_and_back(http):
    ids = http.post("/tokenize", json={"prompt": "Hello, 世界"}).json()
    assert ids["count"] == len(ids["tokens"]) > 0
    assert http.post("/detokenize", json={"tokens": ids["tokens"]}).json()["prompt"] == "Hello, 世界"
