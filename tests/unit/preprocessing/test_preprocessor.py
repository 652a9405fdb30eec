# SPDX-License-Identifier: Apache-2.0
"""The model's requests and responses, with the fake of Triton's API."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.adapters import AdapterSource
from common.adapters import from_json as adapters_of
from common.answer_options import AnswerOptions
from common.checkpoint import Checkpoint
from common.errors import RequestError
from common.shared_bytes import Handle, joined, take
from common.tokenizer import ChatTokenizer
from families.detection import find_styler
from families.parsers import AnswerFormat, starts_in_reasoning
from postprocessing.postprocessor import Postprocessor
from preprocessing.adapters import BackendAdapters
from preprocessing.engine_traits import TRTLLM, engine_traits
from preprocessing.preprocessor import MAX_PROMPT_LOGPROBS, SHARED_FROM_BYTES, Preprocessor, media_options
from preprocessing.prompt import PromptBuilder, PromptRequest
from python_backend.api import pb_utils
from python_backend.config import ModelParameters
from tests.support.chats import tiny, with_template
from tests.support.model_requests import ModelCalls, ModelRequest, outputs
from tests.support.plain_adapter import INPUTS, OUTPUTS, RANK, write_adapter, write_base

IM_END, ENDOFTEXT = 151645, 151643
VOCAB_SIZE = 151936
HELLO = json.dumps({"messages": [{"role": "user", "content": "Hello"}]})
REQUIRED = {"input_ids", "input_lengths", "request_output_len", "out_end_id", "out_pad_id", "stop_words_list"}


@pytest.fixture(scope="module")
def builder(qwen3_tokenizer_dir: Path) -> PromptBuilder:
    checkpoint = Checkpoint(Path(), "qwen3", (), VOCAB_SIZE, 4096, (IM_END, ENDOFTEXT), ENDOFTEXT)
    return PromptBuilder(checkpoint, ChatTokenizer.load(qwen3_tokenizer_dir), find_styler(checkpoint), 64)


@pytest.fixture
def model(builder: PromptBuilder) -> Preprocessor:
    return Preprocessor(builder, engine_traits("vllm", guided_decoding=True))


@pytest.fixture
def trtllm(builder: PromptBuilder) -> Preprocessor:
    return Preprocessor(builder, engine_traits(TRTLLM, guided_decoding=False))


def answer(model: Preprocessor, request: ModelRequest) -> dict[str, Any]:
    (response,) = model.execute([request])  # type: ignore[list-item] # a fake
    return outputs(response)


def refusal(model: Preprocessor, request: ModelRequest) -> RequestError:
    (response,) = model.execute([request])  # type: ignore[list-item] # a fake
    error = RequestError.decode(response.error.message())  # type: ignore[attr-defined]
    assert error is not None
    return error


def test_an_input_without_a_row_is_the_clients_fault(model: Preprocessor) -> None:
    request = ModelRequest()
    request.inputs().append(pb_utils.Tensor("text_input", np.empty((0, 1), dtype=object)))
    error = refusal(model, request)
    assert (error.kind, error.param) == ("invalid_request", "text_input")


def test_a_chat(model: Preprocessor) -> None:
    found = answer(model, ModelRequest(messages=HELLO, max_tokens=5))
    assert set(found) == REQUIRED
    assert found["input_lengths"] == [len(found["input_ids"])]
    assert (found["request_output_len"], found["out_end_id"], found["out_pad_id"]) == ([5], [IM_END], [ENDOFTEXT])
    assert found["stop_words_list"] == [[ENDOFTEXT], [1]]


def test_max_tokens_may_be_capped(model: Preprocessor) -> None:
    (rest,) = answer(model, ModelRequest(messages=HELLO))["request_output_len"]
    request = ModelRequest(messages=HELLO, max_tokens=10**6, parameters={"cap_max_tokens": True})
    assert answer(model, request)["request_output_len"] == [rest]
    assert refusal(model, ModelRequest(messages=HELLO, max_tokens=10**6)).param == "max_tokens"


def test_large_features_are_shared_with_who_asks_for_it(
    model: Preprocessor, builder: PromptBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = [memoryview(b"head"), memoryview(bytes(SHARED_FROM_BYTES))]
    both = ["multimodal", "multimodal_memory"]
    for features, requested, names in (
        # The first ones on both ways, as not every system lets a receiver take them.
        (large, both, both),
        (large, both, both[1:]),
        (large, both[:1], both[:1]),
        (large[:1], both, both[:1]),
    ):
        built = replace(builder.build(PromptRequest(text="Hello", max_tokens=5)), features=features)
        monkeypatch.setattr(builder, "build", lambda asked, built=built: built)
        found = answer(model, ModelRequest(messages=HELLO, requested=requested))
        monkeypatch.undo()
        assert found.keys() & set(both) == set(names)
        for name in names:
            given = take(Handle(*found[name])).tolist() if name == "multimodal_memory" else found[name]
            assert given == joined(features).tolist()


def test_texts_of_the_tokens(model: Preprocessor) -> None:
    parameters = {"return_token_strs": True}
    found = answer(model, ModelRequest(text_input="Hi 世<|im_end|>", parameters=parameters))
    assert found["token_strs"] == ["Hi", "Ġ", "ä¸ĸ", "<|im_end|>"]
    past = answer(model, ModelRequest(prompt_ids=[1, IM_END], parameters=parameters))
    assert past["token_strs"] == ['"', "<|im_end|>"]


def test_words_have_their_ends_below(model: Preprocessor) -> None:
    found = answer(model, ModelRequest(prompt_ids=[1], stop_token_ids=[5, 6], end_id=7))
    assert found["stop_words_list"] == [[5, 6], [1, 2]]
    found = answer(model, ModelRequest(prompt_ids=[1], end_id=7, stop_words=[b"a b"]))
    ids = found["stop_words_list"][0]
    assert found["stop_words_list"] == [ids, [len(ids), *[-1] * (len(ids) - 1)]]


def test_stop_words_without_tokens_are_left_out(model: Preprocessor, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a tokenizer that drops characters it does not know."""
    monkeypatch.setattr(model._builder, "_word_ids", lambda word: [3, 4] if word == "a" else [])
    for words, expected in (([b"\xc2\xad", b"a", b""], [[3, 4], [2, -1]]), ([b"\xc2\xad"], None)):
        found = answer(model, ModelRequest(prompt_ids=[1], end_id=7, stop_words=words))
        assert found.get("stop_words_list") == expected


def test_bias_has_the_size_of_the_vocabulary(model: Preprocessor) -> None:
    found = answer(model, ModelRequest(prompt_ids=[1], logit_bias_ids=[3], logit_bias_values=[0.5]))
    assert (len(found["embedding_bias"]), found["embedding_bias"][3], sum(found["embedding_bias"])) == (
        VOCAB_SIZE,
        0.5,
        0.5,
    )


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"logit_bias_ids": [3]}, "logit_bias_ids and logit_bias_values differ in length"),
        ({"embedding_bias_words": [b"a"]}, "embedding_bias_words and embedding_bias_weights differ in length"),
        ({"text_input": "a"}, "exactly one of"),
        ({"guided_decoding_guide": "x"}, "needs guided_decoding_guide_type"),
    ],
)
def test_wrong_inputs(model: Preprocessor, inputs: dict[str, Any], message: str) -> None:
    error = refusal(model, ModelRequest(prompt_ids=[1], **inputs))
    assert message in error.message and error.kind == "invalid_request"


def test_wrong_answer_options_are_found_first(model: Preprocessor) -> None:
    assert refusal(model, ModelRequest(parameters={"logprobs": 1}, prompt_ids=[1])).param == "logprobs"


ODD: list[dict[str, Any]] = [
    {},
    {"text_input": ""},
    {"text_input": b"\xff"},
    {"text_input": "a", "messages": "{}"},
    *({"messages": text} for text in ("", "{", "[]", "null", '{"messages": 5}', '{"messages": [{}]}', "[" * 100_000)),
    {"messages": '{"messages": [{"role": "user", "content": "\\ud800"}]}'},
    {"prompt_ids": []},
    {"prompt_ids": [-1]},
    {"prompt_ids": [1], "max_tokens": -(2**31)},
    {"prompt_ids": [1], "end_id": -7},
    {"prompt_ids": [1], "pad_id": 2**31 - 1},
    {"prompt_ids": [1], "stop_token_ids": [-1]},
    {"prompt_ids": [1], "images": [b"no image"]},
    {"messages": HELLO, "images": [b"no image"]},
    {"prompt_ids": [1], "logit_bias_ids": [3], "logit_bias_values": [float("nan")]},
    {"prompt_ids": [1], "logit_bias_ids": [3], "logit_bias_values": [0.5, 0.5]},
    {"prompt_ids": [1], "embedding_bias_words": [b"a"], "embedding_bias_weights": [float("inf")]},
    {"prompt_ids": [1], "guided_decoding_guide_type": "poem"},
    {"prompt_ids": [1], "guided_decoding_guide": "a"},
    {"prompt_ids": [1], "guided_decoding_guide_type": "json_schema", "guided_decoding_guide": "{" * 10_000},
    {"prompt_ids": [1], "stop_words": [b"\xff"]},
    {"prompt_ids": [1], "bad_words": [b"", b" "]},
    {"prompt_ids": [1], "parameters": {"stop": "no json"}},
    {"prompt_ids": [1], "parameters": {"top_logprobs": "many"}},
    {"prompt_ids": [1], "parameters": {"return_token_strs": "yes"}},
]


@pytest.mark.parametrize("engine", ["model", "trtllm"])
def test_every_request_gets_one_response(
    engine: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton waits for ever for a request without one, and an exception of `execute` fails the whole batch."""
    monkeypatch.setattr(pb_utils, "InferenceRequest", ModelCalls(), raising=False)
    preprocessor: Preprocessor = request.getfixturevalue(engine)
    requests = [ModelRequest(requested=["input_ids", "request_output_len"], **odd) for odd in ODD]
    unreadable = ModelRequest(prompt_ids=[1])
    unreadable._inputs.append(object())  # type: ignore[arg-type] # no tensor
    requests.append(unreadable)
    responses = preprocessor.execute(requests)  # type: ignore[arg-type] # fakes
    assert len(responses) == len(requests)
    errors = [response.error for response in responses]  # type: ignore[attr-defined]
    assert all(error is None or RequestError.decode(error.message()) is not None for error in errors)
    assert sum(error is not None for error in errors) > len(requests) / 2


def test_a_fault_is_an_internal_error(model: Preprocessor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(model, "_builder")
    assert refusal(model, ModelRequest(prompt_ids=[1])).kind == "internal"


def test_a_guide(model: Preprocessor, trtllm: Preprocessor) -> None:
    request = ModelRequest(prompt_ids=[1], guided_decoding_guide_type="regex", guided_decoding_guide="a+")
    found = answer(model, request)
    assert (found["out_guide_type"], found["out_guide"]) == (["regex"], ["a+"])
    assert "cannot enforce a guide of type 'regex'" in refusal(trtllm, request).message


@pytest.fixture
def toolless(tmp_path: Path) -> Path:
    """A checkpoint whose chat template knows no tools."""
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    tiny("<eos>", template=template)._tokenizer.save_pretrained(tmp_path)
    config = {"model_type": "mistral", "vocab_size": 1000, "max_position_embeddings": 4096, "eos_token_id": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def loaded(folder: Path, **parameters: str) -> Preprocessor:
    return Preprocessor.load(ModelParameters("m", {"model_path": str(folder), **parameters}))


def asked_for_tools(**fields: Any) -> ModelRequest:
    tools = [{"type": "function", "function": {"name": "f"}}]
    chat = {"messages": [{"role": "user", "content": "Hello"}], "tools": tools, **fields}
    return ModelRequest(messages=[json.dumps(chat).encode()], max_tokens=9)


def test_the_option_to_describe_tools_reaches_both_steps(toolless: Path) -> None:
    for value, described in (("", True), ("true", True), ("false", False)):
        model = loaded(toolless, describe_tools=value)
        postprocessor = Postprocessor.load(ModelParameters("m", {"model_path": str(toolless), "describe_tools": value}))
        postprocessor.close()
        assert model._builder.answer_format == postprocessor._answers._format
        if described:
            assert "out_guide" not in answer(model, asked_for_tools())
        else:
            assert refusal(model, asked_for_tools()).param == "tools"
        assert answer(model, asked_for_tools(tool_choice="required"))["out_guide_type"] == ["structural_tag"]


def test_templates_and_parsers_reach_both_steps(toolless: Path) -> None:
    (toolless / "own.jinja").write_text("{{ tools }}{{ messages[0].content }}", encoding="utf-8")
    options = {
        "chat_template": str(toolless / "own.jinja"),
        "tool_call_parser": "llama3_json",
        "reasoning_parser": "qwen3",
    }
    model = loaded(toolless, **options)
    postprocessor = Postprocessor.load(ModelParameters("m", {"model_path": str(toolless), **options}))
    postprocessor.close()
    expected = AnswerFormat("think", False, True, "llama3_json")
    assert model._builder.answer_format == postprocessor._answers._format == expected
    assert model._builder.tokenizer.template == "{{ tools }}{{ messages[0].content }}"


@pytest.mark.parametrize("name", ["chat_template", "tool_call_parser", "reasoning_parser"])
def test_a_wrong_template_or_parser_is_named(toolless: Path, name: str) -> None:
    with pytest.raises(ValueError, match="'no such'"):
        loaded(toolless, **{name: "no such"})
    with pytest.raises(ValueError, match="'no such'"):
        Postprocessor.load(ModelParameters("m", {"model_path": str(toolless), name: "no such"}))


def test_a_request_s_template_needs_the_operator(toolless: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "Hello"}], "chat_template": "<eos>"}
    request = ModelRequest(messages=[json.dumps(chat).encode()], max_tokens=9)
    assert refusal(loaded(toolless), request).param == "chat_template"
    assert answer(loaded(toolless, trust_request_chat_template="true"), request)["input_lengths"] == [1]


def test_forced_calls_on_an_engine_without_structural_tags(toolless: Path) -> None:
    model = loaded(toolless, engine=TRTLLM, guided_decoding="true")
    assert answer(model, asked_for_tools(tool_choice="required"))["out_guide_type"] == ["json_schema"]
    assert "out_guide" not in answer(model, asked_for_tools())
    without = loaded(toolless, engine=TRTLLM)
    assert "cannot enforce" in refusal(without, asked_for_tools(tool_choice="required")).message


@pytest.mark.parametrize("requested", [True, False])
def test_timing(model: Preprocessor, trtllm: Preprocessor, requested: bool) -> None:
    request = ModelRequest(prompt_ids=[1], return_perf_metrics=requested)
    assert answer(model, request)["out_return_perf_metrics"] == [requested]
    # It is the only sign of an answer's end there.
    assert answer(trtllm, request)["out_return_perf_metrics"] == [True]
    assert "out_return_perf_metrics" not in answer(model, ModelRequest(prompt_ids=[1]))


def test_answers_of_trtllm_are_announced(
    trtllm: Preprocessor, model: Preprocessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = ModelCalls()
    monkeypatch.setattr(pb_utils, "InferenceRequest", calls, raising=False)
    request = ModelRequest("id", {"stop": '["a"]', "x": 1.5}, ["request_output_len"], prompt_ids=[1], max_tokens=9)
    answer(model, request)
    answer(trtllm, ModelRequest(prompt_ids=[1], requested=["input_ids"]))
    assert not calls.sent
    answer(trtllm, request)
    (sent,) = calls.sent
    assert (sent["model_name"], sent["request_id"], sent["parameters"]) == ("postprocessing", "id", {"stop": '["a"]'})
    assert sent["inputs"] == {"output_ids": [[[]]], "request_output_len": [[9]], "end_id": [[IM_END]]}


def test_one_of_several_models_announces_to_its_own_postprocessing(
    builder: PromptBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = ModelCalls()
    monkeypatch.setattr(pb_utils, "InferenceRequest", calls, raising=False)
    model = Preprocessor(builder, engine_traits(TRTLLM, guided_decoding=False), "qwen3.g2.preprocessing")
    answer(model, ModelRequest("id", {}, ["request_output_len"], prompt_ids=[1], max_tokens=9))
    assert [sent["model_name"] for sent in calls.sent] == ["qwen3.g2.postprocessing"]


@pytest.fixture(scope="module")
def always_thinking(qwen3_tokenizer_dir: Path) -> PromptBuilder:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% if not loop.last or add_generation_prompt %}"
        "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
        "{# </think> #}"
    )
    tokenizer = with_template(ChatTokenizer.load(qwen3_tokenizer_dir), template)
    checkpoint = Checkpoint(Path(), "qwen2", (), VOCAB_SIZE, 4096, (IM_END, ENDOFTEXT), ENDOFTEXT)
    return PromptBuilder(checkpoint, tokenizer, find_styler(checkpoint))


def continued(written: str, asked: str = "Hello") -> str:
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": written}]
    return json.dumps({"messages": messages, "continue_final_message": True})


# What a chat asks for -> whether the answer starts in the reasoning: of Qwen3, and of a model that always thinks.
ENDS = {
    "a new answer": (HELLO, False, True),
    "begun": (continued("The answer is"), False, False),
    "thinking": (continued("<think>\nI"), True, True),
    "thought": (continued("<think>\nI see.\n</think>\n\nThe"), False, False),
    "the user's tag": (continued("The", "What is <think>?"), False, False),
    "the user's end tag": (continued("<think>\nI", "What is </think>?"), True, True),
    "no generation prompt": (json.dumps({**json.loads(HELLO), "add_generation_prompt": False}), False, False),
}


@pytest.mark.parametrize("case", ENDS)
@pytest.mark.parametrize("thinks", [False, True], ids=["qwen3", "always thinking"])
def test_where_the_prompt_ends_the_parser_starts(
    builder: PromptBuilder, always_thinking: PromptBuilder, case: str, thinks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = always_thinking if thinks else builder
    messages, *expected = ENDS[case]
    request = ModelRequest("r", {"chat": True}, ["request_output_len"], messages=messages)
    found = answer(Preprocessor(chosen, engine_traits("vllm", guided_decoding=True)), request)
    # It is only sent if the parser would start elsewhere.
    different = expected[thinks] != starts_in_reasoning(chosen.answer_format, AnswerOptions(chat=True))
    assert found.get("reasoning_open") == ([int(expected[thinks])] if different else None)
    calls = ModelCalls()
    monkeypatch.setattr(pb_utils, "InferenceRequest", calls, raising=False)
    answer(Preprocessor(chosen, engine_traits(TRTLLM, guided_decoding=False)), request)
    announced = AnswerOptions.from_parameters(calls.sent[0]["parameters"])
    assert starts_in_reasoning(chosen.answer_format, announced) == expected[thinks]


@pytest.mark.parametrize(
    ("text", "kind"), [(RequestError("under way").encode(), "invalid_request"), ("not loaded", "unavailable")]
)
def test_a_refused_announcement(trtllm: Preprocessor, monkeypatch: pytest.MonkeyPatch, text: str, kind: str) -> None:
    monkeypatch.setattr(pb_utils, "InferenceRequest", ModelCalls(text), raising=False)
    request = ModelRequest(requested=["request_output_len"], prompt_ids=[1])
    assert refusal(trtllm, request).kind == kind


def testmedia_options() -> None:
    parameters = {"max_tiles": "3", "image_max_pixels": "100", "pan_and_scan": "true", "video_frames": ""}
    options = media_options(ModelParameters("preprocessing", parameters))
    assert (options.max_tiles, options.limits.max_pixels, options.pan_and_scan) == (3, 100, True)
    assert (options.video_frames, options.max_images, options.max_tiles_per_image) == (8, 64, None)


def test_the_weights_of_an_adapter_are_sent_if_a_parameter_asks_for_them(
    builder: PromptBuilder, tmp_path: Path
) -> None:
    source = AdapterSource("sql", str(write_adapter(tmp_path / "sql")))
    adapters = BackendAdapters([source], write_base(tmp_path / "base"))
    model = Preprocessor(builder, engine_traits(TRTLLM, guided_decoding=False), adapters=adapters)
    told = answer(model, ModelRequest(text_input="a", requested=["adapters"]))
    (sql,) = adapters_of(told["adapters"][0])
    assert sql.name == "sql"
    asked: dict[str, Any] = {"prompt_ids": [1], "lora_task_id": sql.id, "requested": ["input_ids"]}
    assert "lora_weights" not in answer(model, ModelRequest(**asked))
    found = answer(model, ModelRequest(**asked, parameters={"send_adapter": True}))
    assert found["lora_config"] == [[1, 0, RANK], [1, 1, RANK]]
    assert [len(row) for row in found["lora_weights"]] == [RANK * (INPUTS + OUTPUTS)] * 2
    asked["lora_task_id"] = 5
    assert refusal(model, ModelRequest(**asked, parameters={"send_adapter": True})).kind == "not_found"


def test_a_prompt_can_be_cut(model: Preprocessor) -> None:
    asked = {"truncate_prompt_tokens": 2, "truncation_side": "right", "add_special_tokens": False}
    whole = answer(model, ModelRequest(text_input="a b c d"))
    cut = answer(model, ModelRequest(text_input="a b c d", parameters=asked))
    assert cut["input_ids"] == whole["input_ids"][:2]


@pytest.mark.parametrize("kind", [int, str])
@pytest.mark.parametrize(("choices", "most"), [({}, 3), ({"prompt_logprobs_choices": 4}, 12)])
def test_the_log_probabilities_of_a_request_are_bounded(
    model: Preprocessor, kind: Callable[[int], Any], choices: dict[str, Any], most: int
) -> None:
    """Whatever type the number has, of those that engines read."""
    request = {"prompt_ids": [1, 2, 3], "max_tokens": 1}
    limit = MAX_PROMPT_LOGPROBS // most
    assert answer(model, ModelRequest(**request, parameters={"prompt_logprobs": kind(limit - 1), **choices}))
    error = refusal(model, ModelRequest(**request, parameters={"prompt_logprobs": kind(limit), **choices}))
    assert (error.kind, error.param) == ("invalid_request", "prompt_logprobs")


@pytest.mark.parametrize(
    "parameters",
    [
        {"prompt_logprobs": "many"},
        {"prompt_logprobs": -1},
        *({"prompt_logprobs": 0, "prompt_logprobs_choices": value} for value in (0, -1, "x")),
    ],
)
def test_wrong_numbers_of_log_probabilities_are_named(model: Preprocessor, parameters: dict[str, Any]) -> None:
    error = refusal(model, ModelRequest(prompt_ids=[1], max_tokens=1, parameters=parameters))
    assert (error.kind, error.param) == ("invalid_request", [*parameters][-1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("add_special_tokens", 1),
        *(("truncate_prompt_tokens", value) for value in (0, -2, True, "1", 2**31)),
        ("truncation_side", "middle"),
    ],
)
def test_wrong_parameters_of_the_prompt(model: Preprocessor, name: str, value: Any) -> None:
    error = refusal(model, ModelRequest(text_input="a", parameters={name: value}))
    assert (error.param, f"parameter '{name}' must be" in error.message) == (name, True)
