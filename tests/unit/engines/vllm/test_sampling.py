# SPDX-License-Identifier: Apache-2.0
"""Sampling parameters under vLLM's names."""

from vllm import SamplingParams

from common.sampling import SAMPLING
from engines.engine import Generation
from engines.vllm.sampling import NAMES, sampling_params


def test_vllm_has_every_name() -> None:
    assert set(NAMES) == set(SAMPLING)
    assert {name for name in NAMES.values() if name is not None} <= set(SamplingParams.__struct_fields__)


def test_a_request_overrides_the_checkpoints_defaults() -> None:
    params = sampling_params(
        Generation([1], 8, temperature=0.5, seed=7), {"temperature": 0.9, "top_k": 3, "unknown": 1}
    )
    assert (params.temperature, params.top_k, params.seed, params.min_p) == (0.5, 3, 7, 0.0)


def test_allowed_tokens() -> None:
    assert sampling_params(Generation([1], 8, allowed_token_ids=(5, 3)), {}).allowed_token_ids == [5, 3]
    assert sampling_params(Generation([1], 8), {}).allowed_token_ids is None


def test_a_budget_of_reasoning() -> None:
    assert sampling_params(Generation([1], 8, thinking_token_budget=0), {}).thinking_token_budget == 0
    assert sampling_params(Generation([1], 8, thinking_token_budget=-1), {}).thinking_token_budget is None
