# SPDX-License-Identifier: Apache-2.0
"""The config.pbtxt files match the contract, and the modules that name tensors match the configs."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest
from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from common import answer_delta
from common.adapters import ADAPTERS
from common.engine_statistics import STATISTICS
from common.response_batch import ANSWERS, TOKENS
from common.sampling import ENGINE_PARAMETERS, SAMPLING
from common.versions import BUILD_INFO
from engines.engine import Generation
from frontend.triton.tensors import INPUTS as FRONTEND_INPUTS
from preprocessing.images.gemma3 import Gemma3Images
from preprocessing.images.internvl import InternVLImages
from tests.support.contract_table import (
    ENSEMBLE_INPUTS,
    EXTENDED_INPUTS,
    EXTENSIONS,
    INPUTS,
    OUTPUTS,
    PARAMETERS,
    RENAMED,
    Row,
)

REPOSITORY = Path(__file__).parents[3] / "model_repository"
ENGINE_TENSORS = REPOSITORY.parent / "engines" / "tensors.py"
ENGINE_SERVICE = ENGINE_TENSORS.with_name("service.py")
TOLD = {"BUILD_INFO": BUILD_INFO, "ADAPTERS": ADAPTERS, "STATISTICS_OUTPUT": STATISTICS}
MODELS = ("preprocessing", "vit", "tensorrt_llm", "postprocessing", "ensemble")


def read(model: str, path: str = "config.pbtxt") -> ModelConfig:
    config = ModelConfig()
    text_format.Parse((REPOSITORY / model / path).read_text(encoding="utf-8"), config)
    return config


# The LLM's configs, by the engine that each is for.
LLM = {"python": read("tensorrt_llm"), "trtllm": read("tensorrt_llm", "configs/trtllm.pbtxt")}
either_llm = pytest.mark.parametrize("config", LLM.values(), ids=LLM)


def as_row(tensor, *, optional: bool = True) -> Row:
    flags = ("s" if tensor.HasField("reshape") else "") + ("r" if getattr(tensor, "allow_ragged_batch", False) else "")
    if tensor.HasField("reshape"):
        assert not tensor.reshape.shape, f"{tensor.name}: the contract reshapes to []"
    if optional and not tensor.optional:
        flags += "!"
    dtype = ModelConfig.DESCRIPTOR.fields_by_name["input"].message_type.fields_by_name["data_type"].enum_type
    return (tensor.name, dtype.values_by_number[tensor.data_type].name[5:], tuple(tensor.dims), flags)


def test_every_model_exists_under_its_name():
    found = sorted(path.parent.name for path in REPOSITORY.glob("*/config.pbtxt"))
    assert found == sorted(MODELS)
    assert all(read(model).name == model for model in MODELS)


@either_llm
def test_the_llm_inputs_are_the_contracts_and_the_extensions(config):
    assert sorted(map(as_row, config.input)) == sorted(INPUTS + EXTENDED_INPUTS)


@either_llm
def test_the_llm_outputs_are_the_contracts_and_the_extensions(config):
    rows = [as_row(tensor, optional=False) for tensor in config.output]
    assert sorted(rows) == sorted(OUTPUTS + EXTENSIONS)


@either_llm
def test_the_llm_streams(config):
    assert config.model_transaction_policy.decoupled


def test_the_c_backends_config():
    config = LLM["trtllm"]
    values = {name: value.string_value for name, value in config.parameters.items()}
    assert (config.name, config.backend) == ("tensorrt_llm", "tensorrtllm")
    assert values.keys() == PARAMETERS
    assert not [name for name, value in values.items() if "$" in value], "the backend expands no variables"
    wanted = {
        "gpt_model_type": "inflight_fused_batching",
        "gpt_model_path": "/engine",
        "batch_scheduler_policy": "guaranteed_no_evict",
        "enable_chunked_context": "true",
        "enable_kv_cache_reuse": "true",
        "exclude_input_in_output": "true",
        "cancellation_check_period_ms": "100",
    }
    assert wanted.items() <= values.items()


def test_the_ensemble_keeps_upstreams_inputs():
    inputs = {tensor.name: as_row(tensor) for tensor in read("ensemble").input}
    for row in ENSEMBLE_INPUTS:
        assert inputs[row[0]] == row
    assert all("!" not in row[3] for row in inputs.values()), "every input of the ensemble is optional"


def test_the_ensemble_gives_upstreams_outputs():
    outputs = {tensor.name: as_row(tensor, optional=False) for tensor in read("ensemble").output}
    assert outputs["text_output"] == ("text_output", "STRING", (-1,), "")
    for row in OUTPUTS:
        if row[0] not in ("output_ids", "sequence_length"):
            assert outputs[row[0]] == row


def steps() -> dict:
    return {step.model_name: step for step in read("ensemble").ensemble_scheduling.step}


def test_the_ensemble_maps_upstream_names_to_the_contract():
    mapped = dict(steps()["tensorrt_llm"].input_map)
    by_ensemble_name = {value: key for key, value in mapped.items()}
    for name, _, _, _ in ENSEMBLE_INPUTS:
        if name in by_ensemble_name:
            assert by_ensemble_name[name] == RENAMED.get(name, name)
    assert set(RENAMED) <= set(by_ensemble_name)


@pytest.mark.parametrize("model", [model for model in MODELS if model != "ensemble"])
def test_the_ensemble_wires_existing_tensors_of_one_type(model):
    """Triton reports wrong names at load. This finds them without a server, and also unconnected steps."""
    config, step = read(model), steps()[model]
    inputs, outputs = {t.name: t for t in config.input}, {t.name: t for t in config.output}
    assert set(step.input_map) <= set(inputs)
    assert set(step.output_map) <= set(outputs)
    required = {name for name, tensor in inputs.items() if not tensor.optional}
    assert required <= set(step.input_map)
    produced = {t.name: t.data_type for t in read("ensemble").input}
    for other, other_step in steps().items():
        types = {t.name: t.data_type for t in read(other).output}
        produced |= {tensor: types[name] for name, tensor in other_step.output_map.items()}
    for name, tensor in step.input_map.items():
        assert produced[tensor] == inputs[name].data_type, (name, tensor)


def test_postprocessing_keeps_the_order_of_streams():
    config = read("postprocessing")
    assert config.dynamic_batching.preserve_ordering
    assert [group.count for group in config.instance_group] == [1]


def string_literals(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


def tensor_calls(path: Path, functions: str) -> set[str]:
    """The strings among the first two arguments of calls to the named functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            for argument in node.args[:2]:
                if (
                    re.fullmatch(functions, called)
                    and isinstance(argument, ast.Constant)
                    and isinstance(argument.value, str)
                ):
                    found.add(argument.value)
    return found - {""}


# Model -> the modules that read its inputs and write its outputs.
TENSOR_MODULES = {
    "preprocessing": ("preprocessing/tensors.py",),
    "postprocessing": ("postprocessing/tensors.py", "postprocessing/postprocessor.py"),
}


@pytest.mark.parametrize("model", TENSOR_MODULES)
def test_the_models_read_and_write_only_declared_tensors(model):
    config = read(model)
    modules = [REPOSITORY.parent / module for module in TENSOR_MODULES[model]]
    functions = "strings|string|ints|floats|blobs|number|array|rows|_words"
    read_names = {name for module in modules for name in tensor_calls(module, functions)}
    declared = {t.name for t in config.input} | {t.name for t in config.output}
    assert read_names, "the pattern of reading functions no longer matches the code"
    assert read_names <= declared
    written = {text for module in modules for text in string_literals(module)}
    if model == "preprocessing":  # The image family names the tensor of its pixels.
        written |= {Gemma3Images.tensor, InternVLImages.tensor}
    if model == "postprocessing":  # The outputs are those of the table.
        written |= {output.name for output in answer_delta.OUTPUTS.values()} | {ANSWERS}
    assert {t.name for t in config.output} <= written, "an output is declared that no code sends"


def test_the_llm_model_names_only_tensors_of_the_contract():
    config = read("tensorrt_llm")
    read_names = tensor_calls(ENGINE_TENSORS, "scalar|words|text|tensor") | tensor_calls(ENGINE_SERVICE, "scalar")
    read_names |= {one.engine_input for one in SAMPLING.values() if one.datatype is not None}
    assert read_names and read_names <= {t.name for t in config.input}
    sent = {row[0] for row in EXTENSIONS} - {TOKENS} | {
        "output_ids",
        "sequence_length",
        "output_log_probs",
        "cum_log_probs",
    }
    written = string_literals(ENGINE_TENSORS)
    service = ENGINE_SERVICE.read_text(encoding="utf-8")  # Names that are the frontend's too.
    written |= {value for name, value in TOLD.items() if f"text_tensors({name}," in service}
    assert sent <= written


# gRPC's name of a datatype -> the config's.
DATATYPES = {"BYTES": "STRING"}


def test_the_frontend_names_only_tensors_of_the_ensemble():
    declared = {row[0]: row[1] for row in map(as_row, read("ensemble").input)}
    datatypes = {name: one.datatype for name, one in FRONTEND_INPUTS.items()}
    assert {name: DATATYPES.get(dtype, dtype) for name, dtype in datatypes.items()}.items() <= declared.items()
    types = {"text": "STRING", "json": "STRING", "int": "INT32"}
    outputs = {row[0]: row[1] for row in (as_row(tensor, optional=False) for tensor in read("ensemble").output)}
    assert {output.name: types[output.encoding] for output in answer_delta.OUTPUTS.values()}.items() <= outputs.items()


def test_the_engine_reads_the_parameters_that_the_frontend_sends():
    fields = {field.name for field in dataclasses.fields(Generation)}
    assert {parameter.field for parameter in ENGINE_PARAMETERS.values()} <= fields
    names = {node.id for node in ast.walk(ast.parse(ENGINE_TENSORS.read_text())) if isinstance(node, ast.Name)}
    assert "ENGINE_PARAMETERS" in names, "engines/tensors.py reads the parameters by their table"
