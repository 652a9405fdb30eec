# SPDX-License-Identifier: Apache-2.0
"""docs/adding-a-field.md, walked through: a field is added in a copy of the code at the places of its table, and works."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from common.answer_delta import OUTPUTS
from common.response_batch import ANSWERS
from common.sampling import SAMPLING
from engines.engine import Generation
from frontend.protocol.common import GenerationBody
from frontend.triton.tensors import EnsembleRequest
from tests.support.doc_blocks import DOCS, ROOT, codes, rows, section

PAGE = "adding-a-field.md"
COPIED = ("common", "engines", "families", "frontend", "postprocessing", "python_backend", "model_repository", "docs")
FAKES = ROOT / "tests" / "fakes" / "python_backend"

# A place: its file, a text in it, and what is written in front of that text.
Place = tuple[str, str, str]

SAMPLING_PLACES: list[Place] = [
    ("common/sampling.py", "    seed: int |", '    foo: float | None = _sampling("FP32", 0, 1, llmapi=None)\n'),
    (
        "frontend/protocol/common.py",
        "    min_tokens:",
        '    foo: Annotated[FiniteFloat, sampled("foo")] | None = None\n',
    ),
    (
        "model_repository/ensemble/config.pbtxt",
        '  { name: "seed"',
        '  { name: "foo" data_type: TYPE_FP32 dims: [ 1 ] optional: true },\n',
    ),
    (
        "model_repository/ensemble/config.pbtxt",
        '      input_map { key: "seed"',
        '      input_map { key: "foo" value: "foo" }\n',
    ),
    (
        "model_repository/tensorrt_llm/config.pbtxt",
        '  { name: "seed"',
        '  { name: "foo" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } optional: true },\n',
    ),
    (
        "model_repository/tensorrt_llm/configs/trtllm.pbtxt",
        '  { name: "seed"',
        '  { name: "foo" data_type: TYPE_FP32 dims: [ 1 ] reshape { shape: [ ] } optional: true },\n',
    ),
    ("docs/api.md", "| `seed` |", "| `foo` | more of it |\n"),
    (
        "tests/support/contract_table.py",
        'EXTENDED_INPUTS: list[Row] = rows("images"',
        'FOO = rows("foo", "FP32", (1,), "s")  # in EXTENDED_INPUTS\n',
    ),
]

SAMPLING_WORKS = """
from pathlib import Path
import numpy as np
import torch
from google.protobuf import text_format
from triton_python_backend_utils import Tensor
from tritonclient.grpc.model_config_pb2 import ModelConfig
from common.errors import RequestError
from common.sampling import SAMPLING
from engines.sampling import given_sampling
from engines.tensors import Inputs, read_generations
from frontend.endpoints.sampling import sampling_inputs
from frontend.protocol.chat import ChatBody
from frontend.triton.tensors import Capabilities, EnsembleRequest, encode_request

def config(path):
    return text_format.Parse(Path("model_repository", path).read_text(), ModelConfig())

ensemble, llm = config("ensemble/config.pbtxt"), config("tensorrt_llm/config.pbtxt")
body = ChatBody(messages=[{"role": "user", "content": "x"}], foo=0.5)
capabilities = Capabilities(frozenset(one.name for one in ensemble.input), python_engine=True)
request = EnsembleRequest(**sampling_inputs(body))
capabilities.check(request)
sent = {one.name: one.datatype for one in encode_request(request, "id", capabilities).inputs}
assert sent["foo"] == "FP32"
[step] = [one for one in ensemble.ensemble_scheduling.step if one.model_name == "tensorrt_llm"]
assert step.input_map[SAMPLING["foo"].engine_input] == "foo"
assert SAMPLING["foo"].engine_input in {one.name for one in llm.input}

class Request:
    def inputs(self):
        values = {"input_ids": [[1]], "input_lengths": [1], "request_output_len": [1], "foo": [0.5]}
        return [Tensor(name, torch.tensor(value)) for name, value in values.items()]

[(_, _, generation)] = read_generations(Inputs(Request()), {})
assert generation.foo == 0.5
assert given_sampling(generation, {name: one.vllm for name, one in SAMPLING.items()}) == {"foo": 0.5}
try:
    given_sampling(generation, {name: one.llmapi for name, one in SAMPLING.items()})
except RequestError as error:
    assert error.param == "foo"
else:
    raise AssertionError("an engine without the parameter took it")
"""

RESPONSE_PLACES: list[Place] = [
    ("common/answer_delta.py", "    error: str |", '    foo: str | None = _output("foo", "text")\n'),
    ("postprocessing/answer_stream.py", "            completion_tokens=", '            foo="bar",\n'),
    (
        "model_repository/postprocessing/config.pbtxt",
        '  { name: "error"',
        '  { name: "foo" data_type: TYPE_STRING dims: [ 1 ] },\n',
    ),
    (
        "model_repository/ensemble/config.pbtxt",
        '  { name: "error"',
        '  { name: "foo" data_type: TYPE_STRING dims: [ 1 ] },\n',
    ),
    (
        "model_repository/ensemble/config.pbtxt",
        '      output_map { key: "reasoning_tokens"',
        '      output_map { key: "foo" value: "foo" }\n',
    ),
    (
        "frontend/endpoints/chat.py",
        "        frames: list[bytes] = []\n",
        "        if delta.foo:\n            values.append(b'{\"foo\":' + orjson.dumps(delta.foo) + b'}')\n",
    ),
    (
        "frontend/endpoints/chat.py",
        "        if delta.tool_calls:\n            message[",
        '        if delta.foo:\n            message["foo"] = delta.foo\n',
    ),
    ("frontend/endpoints/openapi_answers.py", '"reasoning_content": TEXT', '"foo": TEXT, '),
    ("docs/api.md", "- **Reasoning**", "- **Foo** is in `foo`.\n"),
]

RESPONSE_WORKS = """
import json
from pathlib import Path
import numpy as np
from google.protobuf import text_format
from tokenizers import Tokenizer, models
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc.model_config_pb2 import ModelConfig
from common.answer_options import AnswerOptions
from families.parsers import AnswerFormat
from frontend.endpoints.chat import ChatPlan
from frontend.endpoints.openapi import document
from frontend.protocol.chat import ChatBody
from frontend.triton.deltas import merge
from frontend.triton.tensors import Delta, EnsembleRequest, decode_delta
from postprocessing.answer_stream import AnswerStream
from postprocessing.tensors import write_delta

def config(path):
    return text_format.Parse(Path("model_repository", path).read_text(), ModelConfig())

ensemble, model = config("ensemble/config.pbtxt"), config("postprocessing/config.pbtxt")
tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
answers = AnswerStream(tokenizer, AnswerFormat(), AnswerOptions(), frozenset())
written = {one.name(): one.as_numpy() for one in write_delta(answers.feed([0], engine_finish=1))}
assert written["foo"].tolist() == [[b"bar"]]
assert "foo" in {one.name for one in model.output} & {one.name for one in ensemble.output}
[step] = [one for one in ensemble.ensemble_scheduling.step if one.model_name == "postprocessing"]
assert step.output_map["foo"] == "foo"
response = pb.ModelInferResponse()
response.outputs.add(name="foo")
response.raw_output_contents.append(len(b"bar").to_bytes(4, "little") + b"bar")
delta = merge([Delta("text"), decode_delta(response)])
assert (delta.text, delta.foo) == ("text", "bar")
plan = ChatPlan(ChatBody(messages=[{"role": "user", "content": "x"}]), "model", EnsembleRequest(), [])
chunks = [json.loads(line[6:]) for line in plan.chunks(0, delta).decode().split("\\n\\n") if line]
assert [chunk["choices"][0]["delta"] for chunk in chunks] == [{"content": "text"}, {"foo": "bar"}]
assert plan.whole([delta])["choices"][0]["message"]["foo"] == "bar"
schemas = document()["components"]["schemas"]
for name, part in (("ChatCompletion", "message"), ("ChatCompletionChunk", "delta")):
    choice = schemas[name]["properties"]["choices"]["items"]["properties"]
    assert "foo" in choice[part]["properties"]
"""


@pytest.mark.parametrize(
    ("heading", "places", "works"),
    [
        ("A sampling parameter", SAMPLING_PLACES, SAMPLING_WORKS),
        ("A response field", RESPONSE_PLACES, RESPONSE_WORKS),
    ],
    ids=["sampling", "response"],
)
def test_a_field_added_as_the_page_says_works(heading: str, places: list[Place], works: str, tmp_path: Path) -> None:
    text = section(PAGE, heading)
    links = [re.search(r"\]\((.+?)\)", cells[0]) for cells in rows(text)]
    named = [str((DOCS / link[1]).resolve().relative_to(ROOT)) for link in links if link]
    assert named == [path for path, _, _ in places]
    assert f"{len(places)} places in {len({path for path, _, _ in places})} files" in text
    for folder in (*COPIED, "tests/support"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for path, anchor, new in places:
        old = (tmp_path / path).read_text(encoding="utf-8")
        assert old.count(anchor) == 1, (path, anchor)
        (tmp_path / path).write_text(old.replace(anchor, new + anchor), encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{FAKES}"}
    done = subprocess.run(
        [sys.executable, "-c", works], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def config(path: str) -> ModelConfig:
    text = (ROOT / "model_repository" / path).read_text(encoding="utf-8")
    return text_format.Parse(text, ModelConfig())


def test_every_sampling_parameter_is_everywhere() -> None:
    ensemble = config("ensemble/config.pbtxt")
    [step] = [one for one in ensemble.ensemble_scheduling.step if one.model_name == "tensorrt_llm"]
    documented = {code for cells in rows(section("api.md", "Chat completions")) for code in codes(cells[0])}
    assert set(SAMPLING) <= documented
    assert set(SAMPLING) <= set(GenerationBody.model_fields)
    assert set(SAMPLING) <= set(EnsembleRequest.__dataclass_fields__) & set(Generation.__dataclass_fields__)
    tensors = {name: one.engine_input for name, one in SAMPLING.items() if one.datatype is not None}
    assert {(engine_input, name) for name, engine_input in tensors.items()} <= set(step.input_map.items())
    for path in ("tensorrt_llm/config.pbtxt", "tensorrt_llm/configs/trtllm.pbtxt"):
        types = {one.name: one.data_type for one in config(path).input}
        given = {one.name: one.data_type for one in ensemble.input}
        assert {types[engine_input] == given[name] for name, engine_input in tensors.items()} == {True}


def test_every_response_field_is_everywhere() -> None:
    ensemble = config("ensemble/config.pbtxt")
    steps = {one.model_name: dict(one.output_map) for one in ensemble.ensemble_scheduling.step}
    from_engine = {name: one for name, one in OUTPUTS.items() if one.name in steps["tensorrt_llm"].values()}
    assert set(from_engine) == {"prompt_tokens", "cached_tokens"}
    written = {one.name for name, one in OUTPUTS.items() if name not in from_engine}
    # All of them travel in one more output, of rows.
    outputs = written | {ANSWERS}
    assert outputs == {one.name for one in config("postprocessing/config.pbtxt").output}
    assert {(name, name) for name in outputs} == set(steps["postprocessing"].items())
    assert {one.name for one in OUTPUTS.values()} <= {one.name for one in ensemble.output}


def test_every_response_field_reaches_the_client() -> None:
    """Each field is read as an attribute of a delta where answers are written."""
    read = {
        node.attr
        for path in (
            *("endpoints/chat.py", "endpoints/completions.py", "endpoints/messages.py"),
            *("triton/usage.py", "serving/generation.py"),
        )
        for node in ast.walk(ast.parse((ROOT / "frontend" / path).read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    assert set(OUTPUTS) <= read
