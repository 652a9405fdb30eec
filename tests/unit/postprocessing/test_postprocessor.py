# SPDX-License-Identifier: Apache-2.0
"""The model's requests and responses, with the fake of Triton's API."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from triton_python_backend_utils import MetricFamily

from common.errors import RequestError
from common.finish_reason import FinishReason
from common.response_batch import AnswerRow, Begin, TokenRow, decode_rows, encode_rows
from families.parsers import AnswerFormat
from postprocessing.postprocessor import Postprocessor, log
from python_backend.api import pb_utils
from python_backend.config import ModelParameters
from tests.support.chats import tiny
from tests.support.model_requests import ModelCalls, ModelRequest, outputs

END = 151645  # <|im_end|>


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> ModelCalls:
    """The calls of the model `tensorrt_llm`."""
    calls = ModelCalls()
    monkeypatch.setattr(pb_utils, "InferenceRequest", calls, raising=False)
    return calls


@pytest.fixture
def model(qwen3: Tokenizer, calls: ModelCalls) -> Iterator[Postprocessor]:
    postprocessor = Postprocessor(qwen3, AnswerFormat(), frozenset({END}))
    yield postprocessor
    postprocessor.close()


def ids_of(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def send(model: Postprocessor, *requests: ModelRequest) -> list[dict[str, Any]]:
    return [outputs(response) for response in model.execute(list(requests))]  # type: ignore[arg-type] # fakes


def test_streams_of_one_request_are_apart(model: Postprocessor, qwen3: Tokenizer) -> None:
    one, other = ids_of(qwen3, "北京"), ids_of(qwen3, "Boston")
    first = send(model, *(ModelRequest(output_ids=[ids], stream_id=n) for n, ids in ((1, one), (2, other))))
    assert [each["text_output"] for each in first] == [["北京"], ["Boston"]]
    last = ModelRequest(output_ids=[[END]], stream_id=1, engine_finish_reason=int(FinishReason.END_ID))
    assert send(model, last) == [
        {"text_output": [""], "finish_reason": ["stop"], "completion_tokens": [len(one) + 1], "reasoning_tokens": [0]}
    ]


@pytest.mark.parametrize(("reasoning_open", "text", "reasoning"), [(1, "北京", "hm"), (0, "hm</think>\n\n北京", "")])
def test_the_end_of_the_prompt_comes_with_the_first_response(
    qwen3: Tokenizer, reasoning_open: int, text: str, reasoning: str
) -> None:
    model = Postprocessor(qwen3, AnswerFormat("think", tool_parser="hermes"), frozenset({END}))
    first, *rest = ids_of(qwen3, "hm</think>\n\n北京")
    parameters = {"chat": True, "enable_thinking": not reasoning_open}
    answers = send(
        model, ModelRequest("r", parameters, output_ids=[[first]], stream_id=1, reasoning_open=reasoning_open)
    )
    answers += send(model, *(ModelRequest("r", parameters, output_ids=[[each]], stream_id=1) for each in rest))
    last = ModelRequest("r", parameters, output_ids=[[END]], stream_id=1, engine_finish_reason=1)
    answers += send(model, last)
    assert "".join(each["text_output"][0] for each in answers) == text
    assert "".join(each.get("reasoning_output", [""])[0] for each in answers) == reasoning
    model.close()


def test_a_stop_string_stops_the_engine(model: Postprocessor, qwen3: Tokenizer, calls: ModelCalls) -> None:
    request = ModelRequest("id", {"stop": '["b"]'}, output_ids=[ids_of(qwen3, "a b c")], stream_id=7)
    (answer,) = send(model, request)
    assert (answer["text_output"], answer["finish_reason"]) == (["a "], ["stop"])
    (call,) = calls.sent
    assert (call["model_name"], call["request_id"], call["parameters"]) == ("tensorrt_llm", "id", {"stream_id": 7})
    assert call["inputs"]["stop"] == [[True]]


def test_one_of_several_models_stops_its_own_engine(
    qwen3: Tokenizer, calls: ModelCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MetricFamily, "made", {})
    model = Postprocessor(qwen3, AnswerFormat(), frozenset({END}), "qwen3.g2.postprocessing")
    send(model, ModelRequest("id", {"stop": '["b"]'}, output_ids=[ids_of(qwen3, "a b c")], stream_id=7))
    assert [call["model_name"] for call in calls.sent] == ["qwen3.g2.tensorrt_llm"]
    assert MetricFamily.made["triton_chat_postprocessing_streams"].labels == {"model": "qwen3.g2.postprocessing"}
    model.close()


def test_an_error_of_the_engine_is_an_output(model: Postprocessor) -> None:
    assert send(model, ModelRequest(output_ids=[[]], stream_id=1, engine_error="lost")) == [
        {"text_output": [""], "error": ["lost"]}
    ]


def test_a_failed_answer_stops_the_engine(model: Postprocessor, calls: ModelCalls) -> None:
    (answer,) = send(model, ModelRequest(output_ids=[[1]], stream_id=1, engine_finish_reason=99))
    error = RequestError.decode(answer["error"][0])
    assert error is not None and error.kind == "internal"
    assert len(calls.sent) == 1


@pytest.mark.parametrize(
    "broken",
    [{"engine_error": b"\xff"}, {"output_ids": [[1]], "stream_id": 1, "prompt_log_probs": [[0.0]], "prompt_log_probs_ids": [1]}],
    ids=["no text", "no rows"],
)  # fmt: skip
def test_a_broken_response_fails_no_other(
    model: Postprocessor, qwen3: Tokenizer, calls: ModelCalls, broken: dict[str, Any]
) -> None:
    fine = ModelRequest(output_ids=[ids_of(qwen3, "a")], stream_id=2)
    failed, other = send(model, ModelRequest(**broken), fine)
    assert RequestError.decode(failed["error"][0]) is not None
    assert other == {"text_output": ["a"]}
    assert len(calls.sent) == 1


def test_a_stop_that_fails_costs_no_answer(
    model: Postprocessor, qwen3: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(**_: Any) -> None:
        raise RuntimeError("Stub process 'tensorrt_llm_0_0' is not healthy.")

    monkeypatch.setattr(pb_utils, "InferenceRequest", lost)
    stopped = ModelRequest("a", {"stop": '["b"]'}, output_ids=[ids_of(qwen3, "a b c")], stream_id=7)
    fine = ModelRequest("b", output_ids=[ids_of(qwen3, "a")], stream_id=8)
    assert [answer["text_output"] for answer in send(model, stopped, fine)] == [["a "], ["a"]]


class Unreadable:
    """A tensor that cannot be read, such as one of a type that numpy does not know."""

    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> Any:
        raise ValueError("unknown type")


ODD: list[dict[str, Any]] = [
    {},
    {"output_ids": [[-1]], "stream_id": 1},
    {"output_ids": [[2**31 - 1]], "stream_id": 2},
    {"output_ids": [[]], "stream_id": 3},
    {"output_ids": [[1], [2]], "sequence_length": [9, -1], "stream_id": 4},
    {"output_ids": [[1]], "stream_id": -(2**31)},
    {"output_ids": [[1]], "stream_id": 5, "engine_finish_reason": -1},
    {"output_ids": [[1]], "stream_id": 6, "output_log_probs": [[float("nan")]]},
    {"output_ids": [[1]], "stream_id": 7, "top_log_probs_ids": [[1]], "top_log_probs": [[0.5, 0.5]]},
    {"output_ids": [[1]], "request_output_len": -1, "end_id": -1},
    {"output_ids": [[1]], "stream_id": 8, "reasoning_open": 9},
    {"engine_error": b"\xff"},
    {"engine_error": b""},
]
ODD_PARAMETERS: list[dict[str, Any]] = [
    {"stop": "no json"},
    {"stop": "[1]"},
    {"stop_token_ids": "{}"},
    {"top_logprobs": "many"},
    {"logprobs": [1]},
    {"tool_choice": {}},
]


def test_every_request_gets_one_response(model: Postprocessor, calls: ModelCalls) -> None:
    """Triton waits for ever for a request without one, and an exception of `execute` fails the whole batch."""
    requests = [ModelRequest(f"r{number}", **each) for number, each in enumerate(ODD)]
    requests += [ModelRequest(f"p{n}", each, output_ids=[[1]], stream_id=9) for n, each in enumerate(ODD_PARAMETERS)]
    unreadable = ModelRequest("u", output_ids=[[1]])
    unreadable._inputs.append(Unreadable("stream_id"))
    for request in [*requests, unreadable]:
        assert len(model.execute([request])) == 1  # type: ignore[list-item] # fakes
    assert len(model.execute([*requests, unreadable])) == len(requests) + 1  # type: ignore[arg-type] # fakes


def test_logprobs_are_those_of_the_new_ids(model: Postprocessor, qwen3: Tokenizer) -> None:
    """The C++ backend repeats the log-probabilities of earlier tokens."""
    ids = ids_of(qwen3, "a b")
    request = ModelRequest("r", {"logprobs": True}, output_ids=[ids[1:]], stream_id=1, output_log_probs=[[-1.5, -0.5]])
    (answer,) = send(model, request)
    assert [entry["logprob"] for entry in json.loads(answer["logprobs"][0])] == [-0.5]


def test_logprobs_of_the_prompt(model: Postprocessor, qwen3: Tokenizer) -> None:
    ids = ids_of(qwen3, "a b")
    request = ModelRequest(
        parameters={"prompt_logprobs": 1},
        output_ids=[[END]],
        stream_id=1,
        prompt_log_probs_ids=[[ids[0], 1], [ids[1], 2]],
        prompt_log_probs=[[0.0, 0.0], [-0.25, -0.5]],
        prompt_log_probs_ranks=[0, 7],
    )
    (answer,) = send(model, request)
    entries = json.loads(answer["prompt_logprobs"][0])
    assert [entry["rank"] for entry in entries] == [None, 7]
    assert "prompt_token_ids" not in answer, "nobody asked for them"
    assert [entry["logprob"] for entry in entries] == [None, -0.25]
    assert [entry["logprob"] for entry in entries[1]["top_logprobs"]] == [-0.5]


@pytest.mark.parametrize("asked", [True, "yes", 1])
def test_ids_of_the_prompt_alone(model: Postprocessor, qwen3: Tokenizer, asked: Any) -> None:
    ids = ids_of(qwen3, "a b")
    prompt = [[each] for each in ids]
    request = ModelRequest(
        "r", {"prompt_token_ids": asked}, output_ids=[[END]], stream_id=1, prompt_log_probs_ids=prompt
    )
    (answer,) = send(model, request)
    assert json.loads(answer["prompt_token_ids"][0]) == ids
    assert "prompt_logprobs" not in answer


def test_an_announced_answer_ends_at_its_limit(model: Postprocessor, qwen3: Tokenizer) -> None:
    ids = ids_of(qwen3, "a b")
    announcement = ModelRequest(output_ids=[[]], request_output_len=2, end_id=END)
    assert send(model, announcement) == [{"text_output": [""]}]
    (again,) = model.execute([announcement])  # type: ignore[list-item] # fakes
    assert "under way" in again.error.message()  # type: ignore[attr-defined, call-arg]
    first, last = send(model, *(ModelRequest(output_ids=[[each]], sequence_length=[1]) for each in ids))
    assert first == {"text_output": ["a"]}
    assert (last["text_output"], last["finish_reason"], last["completion_tokens"]) == ([" b"], ["length"], [2])
    assert send(model, announcement) == [{"text_output": [""]}]


def test_further_beams_are_further_texts(model: Postprocessor, qwen3: Tokenizer) -> None:
    long, short = ids_of(qwen3, "a b c"), ids_of(qwen3, "北京")
    padded = short + [END] * (len(long) - len(short))
    request = ModelRequest(
        output_ids=[long, padded],
        sequence_length=[len(long), len(short)],
        stream_id=1,
        engine_finish_reason=int(FinishReason.LENGTH),
    )
    assert send(model, request)[0]["text_output"] == ["a b c", "北京"]


def test_a_start_warns_of_what_cannot_be_read(tmp_path: Path, calls: ModelCalls, caplog) -> None:
    config = {"model_type": "other", "vocab_size": 9, "max_position_embeddings": 64, "eos_token_id": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))

    def warnings(template: str) -> list[str]:
        tiny("<eos>", template=template)._tokenizer.save_pretrained(tmp_path)
        caplog.clear()
        log.addHandler(caplog.handler)
        Postprocessor.load(ModelParameters("postprocessing", {"model_path": str(tmp_path)})).close()
        log.removeHandler(caplog.handler)
        return [record.getMessage() for record in caplog.records if record.name == log.name]

    (warning,) = warnings("{{ tools }}")
    assert "--tool-call-parser" in warning
    assert not warnings("{{ tools }} <tool_call>")


def rows_of(model: Postprocessor, *rows: TokenRow) -> list[AnswerRow]:
    batch = np.frombuffer(encode_rows(rows), np.uint8)
    (response,) = model.execute([ModelRequest("carrier", token_batch=batch)])  # type: ignore[list-item] # a fake
    (tensor,) = response.output_tensors  # type: ignore[attr-defined] # the fake's
    assert tensor.name() == "answer_batch"
    return [AnswerRow(*row) for row in decode_rows(tensor.as_numpy()[0].tobytes())]


def test_a_batch_has_a_row_for_each_of_the_engines(model: Postprocessor, qwen3: Tokenizer) -> None:
    counted = Begin("{}", None, 7, 3)
    first = rows_of(
        model,
        TokenRow("a", 1, 0, ids_of(qwen3, "北京"), None, counted),
        TokenRow("b", 2, 0, ids_of(qwen3, "Boston"), None, Begin('{"token_ids": true}', None, None, None)),
    )
    tokens = len(ids_of(qwen3, "北京"))
    assert first[0] == AnswerRow("a", 0, "北京", {"prompt_tokens": 7, "cached_tokens": 3}, tokens)
    assert (first[1].text, first[1].more) == ("Boston", {"token_ids": ids_of(qwen3, "Boston")})
    last = rows_of(model, TokenRow("a", 1, 1, [END], int(FinishReason.END_ID), None))
    ended = {"finish_reason": "stop", "completion_tokens": tokens + 1, "reasoning_tokens": 0}
    assert last == [AnswerRow("a", 1, "", ended, tokens + 1)]


def test_a_stop_string_in_a_batch_stops_the_engine(model: Postprocessor, qwen3: Tokenizer, calls: ModelCalls) -> None:
    (row,) = rows_of(model, TokenRow("id", 7, 0, ids_of(qwen3, "a b c"), None, Begin('{"stop": "[\\"b\\"]"}', 0, 1, 0)))
    assert (row.text, (row.more or {})["finish_reason"]) == ("a ", "stop")
    assert [(call["request_id"], call["parameters"]) for call in calls.sent] == [("id", {"stream_id": 7})]


def test_a_wrong_row_fails_its_own_answer_only(model: Postprocessor, qwen3: Tokenizer, calls: ModelCalls) -> None:
    begin = Begin("{}", None, None, None)
    rows = rows_of(
        model,
        TokenRow("unknown", 1, 4, [5], None, None),
        TokenRow("wrong", 2, 0, [5], 99, begin),
        TokenRow("right", 3, 0, ids_of(qwen3, "ok"), None, begin),
    )
    assert [RequestError.decode((row.more or {}).get("error", "")) is not None for row in rows] == [True, True, False]
    assert rows[2].text == "ok"
    assert [call["request_id"] for call in calls.sent] == ["unknown"]


def test_a_lone_surrogate_becomes_a_question_mark() -> None:
    sent = encode_rows([AnswerRow("a", 0, "x\ud800", {"tool_calls": [{"name": "\udfff"}]})])
    [row] = [AnswerRow(*row) for row in decode_rows(sent)]
    assert row == AnswerRow("a", 0, "x?", {"tool_calls": [{"name": "?"}]})


def test_a_row_with_an_error_ends_its_answer(model: Postprocessor, qwen3: Tokenizer) -> None:
    begin, error = Begin("{}", None, 1, 0), RequestError("broken", kind="internal").encode()
    rows = [
        TokenRow("a", 1, 0, ids_of(qwen3, "Hi"), None, begin),
        TokenRow("a", 1, 1, ids_of(qwen3, " you"), None, None, error),
        TokenRow("b", 2, 0, [], None, None, error),
    ]
    answers = rows_of(model, *rows)
    assert [answer.text for answer in answers] == ["Hi", " you", ""]
    assert [(answer.more or {}).get("error") for answer in answers] == [None, error, error]
    assert len(model._answers) == 0


def test_answers_of_a_client_that_has_died_are_forgotten(model: Postprocessor, qwen3: Tokenizer) -> None:
    """Not those of others, nor those that began after the client's process that asks for it."""
    for number, owner in enumerate(("dead", "alive", "dead")):
        row = TokenRow(f"r{number}", 1, 0, ids_of(qwen3, "a"), None, Begin(json.dumps({"owner": owner}), None, 1, 0))
        rows_of(model, row)
        if number == 1:
            now = time.time()
    assert len(model._answers) == 3
    forget = ModelRequest("f", {"owner": "dead", "forget_before": str(now)}, engine_error="the client is gone")
    assert [answer["error"] for answer in send(model, forget)] == [["the client is gone"]]
    assert [(f"r{number}", 1) in model._answers for number in range(3)] == [False, True, True]
