# SPDX-License-Identifier: Apache-2.0
"""The contract's sampling inputs as vLLM's `SamplingParams`."""

from collections.abc import Mapping
from typing import Any

from vllm import SamplingParams
from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

from common.sampling import SAMPLING
from engines.engine import Generation
from engines.guides import guide_fields
from engines.sampling import given_sampling
from engines.vllm.errors import request_error

# vLLM keeps seeds as signed numbers, of which -1 is none.
MAX_SEED = 2**63 - 1

# Generation field -> SamplingParams field.
NAMES = {field: one.vllm for field, one in SAMPLING.items()}


def sampling_params(generation: Generation, defaults: Mapping[str, Any]) -> SamplingParams:
    """Map one generation; `defaults` are the checkpoint's own sampling parameters, used if a field is None.

    Raises RequestError for a value that vLLM refuses.
    """
    given = given_sampling(generation, NAMES)
    if generation.seed is not None:
        given["seed"] = generation.seed & MAX_SEED
    inherited = {name: value for name, value in defaults.items() if name in NAMES.values() and name not in given}
    try:
        params = SamplingParams(
            **inherited,
            **given,
            max_tokens=generation.max_tokens,
            # The stop ids are exactly those of the request: vLLM must not add the checkpoint's own to them.
            ignore_eos=True,
            stop_token_ids=_stop_ids(generation),
            logit_bias=_logit_bias(generation),
            allowed_token_ids=list(generation.allowed_token_ids) or None,
            logprobs=generation.top_logprobs if generation.return_log_probs else None,
            prompt_logprobs=generation.prompt_logprobs,
            structured_outputs=_guide(generation),
            detokenize=False,
            output_kind=RequestOutputKind.DELTA if generation.streaming else RequestOutputKind.FINAL_ONLY,
            skip_clone=True,
        )
    except Exception as error:
        refusal = request_error(error)
        if refusal is None:
            raise
        raise refusal from error
    if generation.bad_words:
        # vLLM's public field takes strings and re-tokenises them; the contract gives ids.
        params._bad_words_token_ids = generation.bad_words
    return params


def _stop_ids(generation: Generation) -> list[int]:
    ids = [words[0] for words in generation.stop_words if len(words) == 1]
    if generation.end_id >= 0:
        ids.append(generation.end_id)
    return ids


def _logit_bias(generation: Generation) -> dict[int, float] | None:
    bias = generation.embedding_bias
    if bias is None:
        return None
    biased = bias.nonzero().flatten()
    return dict(zip(biased.tolist(), bias[biased].tolist(), strict=True)) or None


def _guide(generation: Generation) -> StructuredOutputsParams | None:
    fields = guide_fields(generation)
    return None if fields is None else StructuredOutputsParams(**fields)
