# SPDX-License-Identifier: Apache-2.0
"""vLLM's options are known from its source: their names, the values that they take, and the limits of numbers."""

from typing import Any

import pytest

from scripts.launcher.vllm_options import check_value, check_vllm_options, vllm_options

pytestmark = pytest.mark.skipif(not vllm_options(), reason="needs vLLM")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_num_seq", 8, "unknown option --max-num-seq; did you mean --max-num-seqs?"),
        ("zzz", 8, "unknown option --zzz"),
        ("such_thing", False, "unknown option --no-such-thing"),
        ("enable_prefix_cachin", False, "--no-enable-prefix-cachin; did you mean --no-enable-prefix-caching?"),
        ("max_num_seqs", 0, "--max-num-seqs must be at least 1, not 0"),
        ("max_num_batched_tokens", 0, "--max-num-batched-tokens must be at least 1, not 0"),
        ("prot", 8102, "unknown option --prot; did you mean --port?"),
        ("dtype", "bfloat61", "not 'bfloat61'; did you mean bfloat16?"),
        ("dtype", "fp16", "not 'fp16'; did you mean float16?"),
        ("max_num_seqs", "many", "--max-num-seqs must be a whole number, not 'many'"),
        ("max_num_batched_tokens", 8.5, "--max-num-batched-tokens must be a whole number, not '8.5'"),
        ("tensor_parallel_size", 0, "--tensor-parallel-size must be at least 1, not 0"),
        ("tensor_parallel_size", True, "--tensor-parallel-size must be a whole number, not 'true'"),
        ("gpu_memory_utilization", 1.5, "--gpu-memory-utilization must be at most 1, not 1.5"),
        ("gpu_memory_utilization", "half", "--gpu-memory-utilization must be a number, not 'half'"),
        ("enable_prefix_caching", "maybe", "--enable-prefix-caching must be true or false, not 'maybe'"),
        ("quantization", 8, "--quantization must be text, not '8'"),
        (
            "runner",
            "poling",
            "--runner must be one of auto, generate, pooling, draft, not 'poling'; did you mean pooling?",
        ),
        ("convert", True, "--convert must be one of auto, none, embed, classify, not 'true'"),
        ("kv_cache_dtype", "fp7", "did you mean fp8?"),
        ("max_lora_rank", 17, "--max-lora-rank must be one of 1, 8, 16, "),
        ("speculative_config", "{", "--speculative-config is not valid JSON: '{'"),
        ("speculative_config", "ngram", "--speculative-config must be a JSON object such as "),
        ("hf_overrides", "{bad", "--hf-overrides is not valid JSON"),
        ("allowed_media_domains", "example.org", "--allowed-media-domains must be a list such as "),
    ],
)
def test_a_wrong_option_is_named(name: str, value: Any, said: str) -> None:
    with pytest.raises(ValueError) as caught:
        check_vllm_options({name: value}, ["--port"])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dtype", "half"),
        ("seed", 3),
        ("gpu_memory_utilization", 1),
        ("quantization", None),
        ("quantization", "awq"),
        # Plugins may bring others, and vLLM itself knows more than its annotations say.
        ("quantization", "my_own_way"),
        ("tokenizer_mode", "deepseek_v41"),
        ("load_format", "safetensor"),
        ("runner", "generate"),
        ("runner", "pooling"),
        ("convert", "embed"),
        ("convert", "classify"),
        ("load_format", "my_loader"),
        ("worker_cls", "mine.Worker"),
        ("attention_backend", "FLASH_ATTN"),
        ("hf_overrides", {"rope_scaling": {"factor": 2}}),
        ("speculative_config", {"method": "ngram"}),
        ("compilation_config", {"level": 0}),
        ("per_request_spec_decode_metrics", None),
        ("enable_log_requests", True),
    ],
)
def test_what_vllm_takes_is_left_alone(name: str, value: Any) -> None:
    check_vllm_options({name: value})


def test_every_default_of_vllm_passes() -> None:
    arguments = pytest.importorskip("vllm.engine.arg_utils")
    import dataclasses

    for field in dataclasses.fields(arguments.AsyncEngineArgs):
        value = field.default if field.default is not dataclasses.MISSING else None
        if isinstance(value, bool | int | float | str | list | dict):
            check_value(field.name, value)
