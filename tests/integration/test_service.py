# SPDX-License-Identifier: Apache-2.0
"""Models, health, and the requests of the Qwen2 document."""

import json

import pytest


def test_models(client, http):
    assert {model.id for model in client.models.list()} == {"smollm2-135m-instruct", "qwen2"}
    assert client.models.retrieve("qwen2").id == "qwen2"
    missing = http.get("/v1/models/nothing")
    assert missing.status_code == 404 and missing.json()["error"]["code"] == "model_not_found"


def test_health(http):
    assert http.get("/health/live").status_code == 200
    assert http.get("/health/ready").status_code == 200


def test_the_qwen2_documents_curl(http, stack):
    """The path has a double slash, and the text is Chinese."""
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


def test_responses(client):
    question = {"model": "qwen2", "input": "Please name the capital of France.", "temperature": 0}
    whole = client.responses.create(**question)
    assert "Paris" in whole.output_text and whole.status == "completed"
    with client.responses.stream(**question) as events:
        pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
        assert events.get_final_response().output_text == whole.output_text == "".join(pieces)


@pytest.mark.python_engine("the prompt's log-probabilities are an extension")
def test_echo_with_logprobs(client):
    """Evaluation harnesses request log-probabilities of the prompt."""
    prompt = "The capital of France is Paris"
    answer = client.completions.create(model="qwen2", prompt=prompt, max_tokens=1, echo=True, logprobs=1, temperature=0)
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text.startswith(prompt)
    assert logprobs.token_logprobs[0] is None and all(value <= 0 for value in logprobs.token_logprobs[1:])
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert logprobs.tokens[5] == " Paris" and logprobs.token_logprobs[5] > -1.5


def test_sampling_defaults_are_the_checkpoints(client):
    """Its generation config has temperature 0.2; at OpenAI's 1.0 a model of this size seldom stays on topic."""
    answers = [
        client.chat.completions.create(
            model="qwen2",
            messages=[{"role": "user", "content": "Please name the capital of France."}],
            max_tokens=30,
            seed=seed,
        )
        .choices[0]
        .message.content
        for seed in range(4)
    ]
    assert sum("Paris" in text for text in answers) >= 3
