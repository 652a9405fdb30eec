# SPDX-License-Identifier: Apache-2.0
"""Explanations of failures from log lines."""

import pytest

from scripts.launcher.diagnose import describe_exit, explain

CASES = [
    (
        "ValueError: engine options (SpeculativeConfig): num_speculative_tokens: Input should be greater than 0",
        "The engine refuses an option (SpeculativeConfig): num_speculative_tokens: Input should be greater than 0.",
    ),
    (
        "ValueError: engine option 'speculative_config' must be an object, not str",
        "The engine refuses an option 'speculative_config' must be an object, not str.",
    ),
    (
        "ValueError: engine options (ModelConfig): User-specified max_model_len (9) is greater than the derived 8",
        "shorter than --max-model-len 9",
    ),
    ("ValueError: unknown engine 'ollama'; known: llmapi, vllm, or module:Class", "There is no engine 'ollama'"),
    ("ValueError: unknown engine option 'foo'; known: dtype", "The engine has no option 'foo'"),
    (
        "E1121 model_repository_manager.cc:1460] \"Poll failed for model directory 'ensemble': 'x' is unused\"",
        "model ensemble cannot be used: 'x' is unused.",
    ),
    (
        "stub: error while loading shared libraries: libpython3.11.so.1.0: cannot open",
        "did not find libpython3.11.so.1.0",
    ),
    (
        "tritonserver: error while loading shared libraries: libb64.so: cannot open",
        "shared library libb64.so is missing",
    ),
    ("ImportError: numpy.core.multiarray failed to import", "numpy 1.26.4 is needed"),
    ("ModuleNotFoundError: No module named 'preprocessing'", "package preprocessing is not installed here"),
    ("ModuleNotFoundError: No module named 'vllm'", "package vllm is missing"),
    (
        "OSError: Could not load this library: /site-packages/torchaudio/lib/_torchaudio.abi3.so",
        "package torchaudio does not fit the torch",
    ),
    ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "--gpu-memory-utilization"),
    (
        "ValueError: Free memory on device cuda:0 (1/80 GiB) on startup is less than desired GPU memory utilization",
        "Something else uses the GPU's memory",
    ),
    (
        "ValueError: To serve at least one request with the model's max seq len (131072), (16 GiB KV cache is needed",
        "Lower --max-model-len",
    ),
    (
        "Value error, User-specified max_model_len (9000) is greater than the derived max_model_len (8192)",
        "shorter than --max-model-len 9000",
    ),
    ("[TensorRT-LLM] Decoder (GPT) model path at /engine does not exist.", "finds no /engine. Give --engine-dir"),
    ("Value error, Model architectures ['FooForCausalLM'] are not supported for now", "['FooForCausalLM']"),
    ("ValueError: loading needs custom code; set the option `trust_remote_code=True`", "--trust-remote-code"),
    ("OSError: [Errno 12] Cannot allocate memory", "too little memory"),
    ("OSError: [Errno 28] No space left on device", "/dev/shm"),
    ("Internal: Unable to initialize shared memory key 'triton_x'", "--shm-size"),
    (
        "E1121 main.cc:400] failed to start HTTP service: Unavailable - Socket '127.0.0.1:8000' already in use",
        "A port is taken",
    ),
    (
        "(EngineCore pid=4958) AssertionError: Not enough allowed NUMA nodes to bind threads of 2 local CPUWorkers.",
        "NUMA node for each of its 2 workers",
    ),
    (
        "(Worker_TP1 pid=77) ERROR 11-22 13:33:25 [core.py:1366] ValueError: no such layer",
        "The engine failed: ValueError: no such layer",
    ),
    ("(EngineCore_DP0 pid=4) torch.AcceleratorError: CUDA error: unknown", "The engine failed: torch.AcceleratorError"),
    ("TRITON_CHAT_PORT='x': expected a whole number from 0 to 65535", "setting: TRITON_CHAT_PORT='x'"),
    (
        "ValueError: model 'vit': config parameter 'model_path' is empty; is its variable set?",
        "parameter model_path is empty",
    ),
    (
        "E1121 model_lifecycle.cc:641] \"failed to load 'vit' version 1: Internal: RuntimeError: no such tower\"",
        "Model vit failed: Internal: RuntimeError: no such tower",
    ),
]


@pytest.mark.parametrize(("line", "words"), CASES)
def test_explain(line: str, words: str) -> None:
    explanation = explain(["I1121 starting", line, "later"])
    assert explanation is not None
    assert words in explanation


def test_the_cause_wins_over_its_consequence() -> None:
    lines = [
        "\"failed to load 'tensorrt_llm' version 1: Internal: ValueError: unknown engine option 'foo'; known: dtype\"",
        "error: creating server: Internal - failed to load all models",
    ]
    assert "no option 'foo'" in (explain(lines) or "")
    lines = [
        "(EngineCore pid=4) ERROR 11-22 13:33:25 [core.py:13] ValueError: no such layer",
        "E1122 x] \"failed to load 'tensorrt_llm' version 1: Internal: RuntimeError: Engine core initialization failed\"",
    ]
    assert explain(lines) == "The engine failed: ValueError: no such layer"


def test_warnings_and_unknown_lines_explain_nothing() -> None:
    warning = "WARNING 11-21 05:03:18 [x.py:29] Failed to import the extension: No module named 'vllm._optional'"
    assert explain([warning, "W1121 05:03:18 x] No module named 'triton'", "all is well"]) is None


@pytest.mark.parametrize(
    ("status", "words"), [(1, "status 1"), (-9, "out of memory"), (-11, "SIGSEGV"), (0, "exited with status 0")]
)
def test_describe_exit(status: int, words: str) -> None:
    assert words in describe_exit(status)
