# SPDX-License-Identifier: Apache-2.0
"""The contract's sampling inputs as TensorRT-LLM's `SamplingParams`."""

from collections.abc import Mapping
from typing import Any

from tensorrt_llm import SamplingParams
from tensorrt_llm.llmapi import GuidedDecodingParams

from common.errors import RequestError
from common.sampling import SAMPLING
from engines.engine import Generation
from engines.guides import guide_fields
from engines.sampling import given_sampling, refused

# Generation field -> SamplingParams field.
NAMES = {field: one.llmapi for field, one in SAMPLING.items()}
# Generation field -> the value that changes nothing.
PENALTIES = {field: one.neutral for field, one in SAMPLING.items() if one.neutral is not None}


def sampling_params(generation: Generation, defaults: Mapping[str, Any], penalising: bool) -> SamplingParams:
    """Map one generation; `defaults` are the checkpoint's own, used if a field is None.

    penalising: the engine's sampler knows penalties and bad words.
    Raises RequestError for what this engine cannot do.
    """
    _refuse(generation, penalising)
    names = {field: name for field, name in NAMES.items() if penalising or field not in PENALTIES}
    values = {name: value for name, value in defaults.items() if penalising or name not in PENALTIES}
    values |= given_sampling(generation, names)
    guide = guide_fields(generation)
    try:
        return SamplingParams(
            **_strategy(values),
            max_tokens=generation.max_tokens,
            end_id=generation.end_id,
            # A model's end id that the request does not name must not end it.
            ignore_eos=generation.end_id < 0,
            stop_token_ids=[words[0] for words in generation.stop_words if len(words) == 1] or None,
            # Ids are answered as they are; postprocessing leaves out what a client must not see.
            include_stop_str_in_output=True,
            bad_token_ids=[words[0] for words in generation.bad_words] or None,
            embedding_bias=generation.embedding_bias,
            # 0 would turn them off; the token's own comes with the first.
            logprobs=max(1, generation.top_logprobs) if generation.return_log_probs else None,
            guided_decoding=None if guide is None else GuidedDecodingParams(**guide),
            detokenize=False,
            add_special_tokens=False,
        )
    except ValueError as error:
        raise refused(str(error)) from error


def _strategy(values: dict[str, Any]) -> dict[str, Any]:
    """The parameters of the sampling strategy.

    TensorRT-LLM decodes greedily unless top_k or top_p is given; the contract does if the temperature is 0.
    """
    if values.get("temperature") == 0 or values.get("top_k") == 1:
        rest = {name: value for name, value in values.items() if name not in ("temperature", "top_k", "top_p", "min_p")}
        return {**rest, "top_k": 1}
    if values.get("top_k", 0) <= 0:
        values.pop("top_k", None)
    if "top_k" not in values:
        values.setdefault("top_p", 1.0)
    return {"temperature": 1.0, **values}


def _refuse(generation: Generation, penalising: bool) -> None:
    """Raise RequestError for what the engine would pass over in silence, or has no input for."""
    if generation.prompt_logprobs is not None:
        raise RequestError("this engine gives no log-probabilities of the prompt", param="prompt_logprobs")
    if generation.priority:
        raise RequestError("this engine serves in order of arrival: priority is not supported", param="priority")
    for name in ("allowed_token_ids", "cache_salt"):
        if getattr(generation, name):
            raise RequestError(f"this engine does not support {name}", param=name)
    if generation.prompt_table is not None:
        raise RequestError("this engine takes no prompt embeddings: serve this model with another engine")
    if any(len(words) > 1 for words in generation.bad_words):
        raise RequestError("this engine takes bad words of one token only", param="bad_words")
    if penalising:
        return
    hint = "its option sampler_type must be TRTLLMSampler for that"  # Up to 1.2; later ones are always `penalising`.
    if generation.bad_words:
        raise RequestError(f"this engine's sampler knows no bad words; {hint}", param="bad_words")
    for name, neutral in PENALTIES.items():
        if getattr(generation, name) not in (None, neutral):
            raise RequestError(f"this engine's sampler knows no {name}; {hint}", param=name)
