# SPDX-License-Identifier: Apache-2.0
"""Sampling parameters under the names of TensorRT-LLM's LLM API."""

import dataclasses

import pytest
from tensorrt_llm import SamplingParams

from common.errors import RequestError
from common.sampling import SAMPLING
from engines.engine import Generation
from engines.llmapi.sampling import NAMES, PENALTIES, sampling_params
from engines.sampling import given_sampling


def test_the_llm_api_has_every_name() -> None:
    assert set(NAMES) == set(SAMPLING)
    fields = {field.name for field in dataclasses.fields(SamplingParams)}
    assert {name for name in NAMES.values() if name is not None} <= fields
    assert PENALTIES == {"repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


def test_only_what_a_request_sets_is_given() -> None:
    generation = Generation([1], 8, temperature=0.0, top_p=0.5)
    assert given_sampling(generation, {"temperature": "heat", "top_k": "top_k", "min_p": None}) == {"heat": 0.0}
    with pytest.raises(RequestError, match="does not support top_p") as caught:
        given_sampling(generation, {"top_p": None})
    assert caught.value.param == "top_p"


def test_a_budget_of_reasoning_is_refused_by_name() -> None:
    with pytest.raises(RequestError) as caught:
        sampling_params(Generation([1], 8, thinking_token_budget=64), {}, penalising=True)
    assert caught.value.param == "thinking_token_budget"
