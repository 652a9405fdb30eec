# SPDX-License-Identifier: Apache-2.0
"""The launcher's command line: its own options, the engine's and the frontend's."""

import shlex
from pathlib import Path
from typing import Any

import pytest

from scripts.launcher.flags import size_of, value_of
from scripts.launcher.options import LaunchOptions, parse_options

VLLM_SERVE = (
    "gemma-3-27b-it --tensor-parallel-size 2 --max-model-len 16384 --port 8102 --trust-remote-code "
    "--served-model-name gemma3-27b --enable-chunked-prefill --max-num-batched-tokens 2048 "
    "--gpu-memory-utilization 0.95"
)


def test_a_line_of_vllm_serve_works_unchanged() -> None:
    options = parse_options(shlex.split(VLLM_SERVE))
    assert options.model == "gemma-3-27b-it"
    assert options.max_model_len == 16384
    assert options.port == 8102
    assert options.served_model_name == ("gemma3-27b",)
    assert options.engine == {
        "tensor_parallel_size": 2,
        "trust_remote_code": True,
        "enable_chunked_prefill": True,
        "max_num_batched_tokens": 2048,
        "gpu_memory_utilization": 0.95,
    }
    assert options.settings == {}


def test_defaults() -> None:
    options = parse_options([])
    assert (options.model, options.host, options.port) == ("smollm2", "127.0.0.1", 9997)
    assert options.triton_host == "127.0.0.1"
    assert options.served_model_name == ()
    assert options.engine == {}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--model x", {"model": "x"}),
        ("x", {"model": "x"}),
        ("--port=1", {"port": 1}),
        ("--max-model-len 16k", {"max_model_len": 16000}),
        ("--max-model-len 16K", {"max_model_len": 16384}),
        ("--served-model-name a b --port 0", {"served_model_name": ("a", "b"), "port": 0}),
        ("--served-model-name a b --dtype half x", {"served_model_name": ("a", "b"), "model": "x"}),
        ("--triton-host 0.0.0.0 --triton-grpc-port 9001", {"triton_host": "0.0.0.0", "triton_grpc_port": 9001}),
        ("--model-config-name trtllm", {"model_config_name": "trtllm"}),
        ("--ready-timeout 5", {"ready_timeout": 5.0}),
        ("--log-dir logs", {"log_dir": Path("logs")}),
    ],
)
def test_own_options(line: str, expected: dict[str, Any]) -> None:
    options = parse_options(shlex.split(line))
    assert {key: getattr(options, key) for key in expected} == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--enable-chunked-prefill", {"enable_chunked_prefill": True}),
        ("--no-enable-prefix-caching", {"enable_prefix_caching": False}),
        ("--enable-chunked-prefill false", {"enable_chunked_prefill": False}),
        ("--dtype bfloat16", {"dtype": "bfloat16"}),
        ("--dtype=bfloat16 --seed 3", {"dtype": "bfloat16", "seed": 3}),
        ("--quantization None", {"quantization": None}),
        ("-tp 2 -q awq", {"tensor_parallel_size": 2, "quantization": "awq"}),
        ("-tp=4 -ep -dpn 1", {"tensor_parallel_size": 4, "enable_expert_parallel": True, "data_parallel_rank": 1}),
        ("-O3", {"optimization_level": 3}),
        ("-O=0 --seed 1", {"optimization_level": 0, "seed": 1}),
        ("-O 2", {"optimization_level": 2}),
        ("--max_num_seqs 8", {"max_num_seqs": 8}),
        (
            "-cc.mode 3 --compilation_config.pass_config.fuse_norm=true",
            {"compilation_config": {"mode": 3, "pass_config": {"fuse_norm": True}}},
        ),
        ("""-cc '{"a": 1}' -cc.b 2""", {"compilation_config": {"a": 1, "b": 2}}),
        ("""-cc.b 2 -cc '{"a": 1}'""", {"compilation_config": {"a": 1, "b": 2}}),
        (
            "-cc.cudagraph_mode=NONE --compilation-config.mode none -cc.size 16k -cc.cache null",
            {"compilation_config": {"cudagraph_mode": "NONE", "mode": "none", "size": 16000, "cache": None}},
        ),
        (
            "-cc.custom_ops+ none,+rms_norm -cc.custom_ops+=x",
            {"compilation_config": {"custom_ops": ["none", "+rms_norm", "x"]}},
        ),
        ("--max-num-batched-tokens 8K", {"max_num_batched_tokens": 8192}),
        ("--cuda-graph-sizes '[1, 2]'", {"cuda_graph_sizes": [1, 2]}),
        ("""--speculative-config '{"method": "ngram"}'""", {"speculative_config": {"method": "ngram"}}),
        ("--swap-space -1", {"swap_space": -1}),
        ("--seed 1 --seed 2", {"seed": 2}),
    ],
)
def test_engine_options(line: str, expected: dict[str, Any]) -> None:
    assert parse_options(shlex.split(line)).engine == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--api-key secret", {"TRITON_CHAT_API_KEY": "secret"}),
        ("--api-key a --api-key b", {"TRITON_CHAT_API_KEY": "a,b"}),
        ("--max-in-flight 8", {"TRITON_CHAT_MAX_IN_FLIGHT": "8"}),
        # Only lists add up; of the others the last value counts.
        ("--max-in-flight 8 --max-in-flight 9", {"TRITON_CHAT_MAX_IN_FLIGHT": "9"}),
        ("--tool-call-parser hermes --tool-call-parser hermes", {"TRITON_CHAT_TOOL_CALL_PARSER": "hermes"}),
        ("--vision vit --vision engine", {"TRITON_CHAT_VISION": "engine"}),
        ("--inline-reasoning", {"TRITON_CHAT_INLINE_REASONING": "true"}),
        ("--tool-call-parser hermes", {"TRITON_CHAT_TOOL_CALL_PARSER": "hermes"}),
        ("--reasoning-parser=qwen3", {"TRITON_CHAT_REASONING_PARSER": "qwen3"}),
        ("--chat-template '{{ x,y }}'", {"TRITON_CHAT_CHAT_TEMPLATE": "{{ x,y }}"}),
        ("--trust-request-chat-template", {"TRITON_CHAT_TRUST_REQUEST_CHAT_TEMPLATE": "true"}),
        ("--no-enable-thinking", {"TRITON_CHAT_ENABLE_THINKING": "false"}),
        # Text stays text: a key of digits is not a number.
        ("--api-key 0123", {"TRITON_CHAT_API_KEY": "0123"}),
    ],
)
def test_settings_of_the_frontend_go_to_the_frontend(line: str, expected: dict[str, str]) -> None:
    options = parse_options(shlex.split(line))
    assert options.settings == expected
    assert options.engine == {}


def test_flags_that_stylers_make_unnecessary_are_noted_and_dropped() -> None:
    options = parse_options(["m", "--enable-auto-tool-choice", "--dtype", "half"])
    assert options.engine == {"dtype": "half"}
    assert [note.split(" ")[0] for note in options.notes] == ["--enable-auto-tool-choice"]


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_flags_override_the_engine_config(tmp_path: Path, suffix: str) -> None:
    content = {"json": '{"dtype": "half", "max-num-seqs": 4}', "yaml": "dtype: half\nmax-num-seqs: 4\n"}[suffix]
    config = tmp_path / f"engine.{suffix}"
    config.write_text(content)
    options = parse_options(["--engine-config", str(config), "--dtype", "bfloat16"])
    assert options.engine == {"dtype": "bfloat16", "max_num_seqs": 4}


def test_a_field_is_added_to_the_object_of_the_engine_config(tmp_path: Path) -> None:
    config = tmp_path / "engine.yaml"
    config.write_text("compilation_config: {cudagraph_mode: NONE, mode: 0}\n")
    options = parse_options(["--engine-config", str(config), "--compilation-config.mode", "3"])
    assert options.engine == {"compilation_config": {"cudagraph_mode": "NONE", "mode": 3}}


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("--port 70000", "--port"),
        ("--max-model-len auto", "--max-model-len must be a number here, not 'auto'"),
        ("--max_model_len -1", "--max-model-len must be a number here, not '-1'"),
        ("--compilation-config.mode", "--compilation-config.mode needs a value"),
        ("-cc 3 -cc.mode 3", "--compilation-config.mode: --compilation-config was given another value"),
        ("--port x", "--port"),
        ("--frontends 0", "--frontends"),
        ("--max-model-len -5", "--max-model-len"),
        ("a --model b", "two models"),
        ("--engine-config /nowhere.yaml", "/nowhere.yaml"),
    ],
)
def test_bad_values_are_refused_by_name(line: str, named: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_options(shlex.split(line))
    assert named in capsys.readouterr().err


def test_engine_config_must_hold_an_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "engine.yaml"
    config.write_text("- dtype\n")
    with pytest.raises(SystemExit):
        parse_options(["--engine-config", str(config)])
    assert "expected `option: value` in each line" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2", 2),
        ("0.5", 0.5),
        ("TRUE", True),
        ("null", None),
        ("no", "no"),
        ("1e-3", 0.001),
        ("a: b", "a: b"),
        ("2M", 2**21),
        (".9", 0.9),
        ("4.", 4.0),
        ("-.5", -0.5),
        ("+2.5e-1", 0.25),
        (".", "."),
        ("1.2.3", "1.2.3"),
    ],
)
def test_value_of(text: str, value: Any) -> None:
    assert value_of(text) == value


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "k", "", "16kb"])
def test_size_of_refuses(text: str) -> None:
    with pytest.raises(ValueError):
        size_of(text)


def test_options_are_frozen() -> None:
    with pytest.raises(AttributeError):
        LaunchOptions().port = 1  # type: ignore[misc]


def test_adapters_are_written_as_for_vllm() -> None:
    line = '--enable-lora --lora-modules sql=/a/sql {"name":"p","path":"/a/p"} --max-lora-rank 32 --lora-modules c=/c m'
    options = parse_options(["--model", "base", *line.split()])
    assert options.model == "base"
    assert options.engine == {
        "enable_lora": True,
        "lora_modules": ["sql=/a/sql", {"name": "p", "path": "/a/p"}, "c=/c", "m"],
        "max_lora_rank": 32,
    }
    for words in ("sql=/a/sql", '["sql=/a/sql"]'):
        assert parse_options(["base", f"--lora-modules={words}"]).engine == {"lora_modules": ["sql=/a/sql"]}


def test_paths_of_engine_options_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """tritonserver runs in a folder of its own. A value that names no file stays: a hub id, a number format."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "draft").mkdir()
    (tmp_path / "fp8").mkdir()
    (tmp_path / "lora.json").touch()
    line = "--quantization fp8 --lora lora.json --download-dir ./later --hub org/model --there /a/b --dtype bfloat16"
    draft = ["--speculative-config", '{"model": "../x/draft", "others": ["lora.json"], "num_speculative_tokens": 3}']
    assert parse_options([*line.split(), *draft]).engine == {
        "quantization": "fp8",
        "lora": f"{tmp_path}/lora.json",
        "download_dir": f"{tmp_path}/later",
        "hub": "org/model",
        "there": "/a/b",
        "dtype": "bfloat16",
        "speculative_config": {
            "model": f"{tmp_path.parent}/x/draft",
            "others": [f"{tmp_path}/lora.json"],
            "num_speculative_tokens": 3,
        },
    }
