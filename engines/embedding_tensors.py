# SPDX-License-Identifier: Apache-2.0
"""The tensors of the Triton model `embedding`: read from a request, and written to its response."""

from itertools import accumulate

import numpy as np

from common.errors import RequestError
from common.sampling import INT32_MAX, Limits
from engines.pooling import Pooled, PoolingRequest, Prompt
from engines.tensors import Inputs
from python_backend.api import Tensor, pb_utils

_DIMENSIONS = Limits(1, INT32_MAX)
# -1 is the model's context length.
_TRUNCATE = Limits(-1, INT32_MAX)


def read_request(inputs: Inputs, request_id: str, max_inputs: int) -> PoolingRequest:
    """Read a request to embed or score; raises RequestError naming the input that is wrong.

    max_inputs: prompts, or pairs, that a request may have.
    """
    prompts, pairs = _prompts(inputs), inputs.texts("text_pair")
    count = max(len(prompts), 0 if pairs is None else len(pairs))
    if count > max_inputs:
        raise RequestError(f"a request may have at most {max_inputs} inputs, not {count}", param=_at_fault(inputs))
    if pairs is not None and (not pairs or len(prompts) not in (1, len(pairs))):
        raise RequestError(
            f"text_pair must have as many texts as text_input, or text_input one: {len(prompts)} and {len(pairs)}",
            param="text_pair",
        )
    dimensions, truncate = inputs.scalar("dimensions", 0), inputs.scalar("truncate_prompt_tokens", 0)
    if dimensions is not None:
        _DIMENSIONS.check(dimensions, "dimensions")
    if truncate is not None:
        _TRUNCATE.check(truncate, "truncate_prompt_tokens")
        if truncate == 0:
            raise RequestError("truncate_prompt_tokens must be -1 or at least 1", param="truncate_prompt_tokens")
    return PoolingRequest(
        prompts=prompts, pairs=pairs, dimensions=dimensions, truncate_prompt_tokens=truncate, request_id=request_id
    )


def pooled_tensors(pooled: Pooled, requested: set[str]) -> list[Tensor]:
    """Build the response's tensors, limited to the outputs that the request asked for."""
    values = {
        "embedding": pooled.embeddings,
        "score": pooled.scores,
        "num_input_tokens": np.array(pooled.num_input_tokens, np.int32),
    }
    return [pb_utils.Tensor(name, value) for name, value in values.items() if value is not None and name in requested]


def _at_fault(inputs: Inputs) -> str:
    return next(name for name in ("text_pair", "input_ids", "text_input") if name in inputs)


def _prompts(inputs: Inputs) -> list[Prompt]:
    texts, ids, lengths = inputs.texts("text_input"), inputs.tensor("input_ids"), inputs.tensor("input_lengths")
    if (texts is None) == (ids is None):
        raise RequestError("a request has either text_input or input_ids", param="text_input")
    if texts is not None:
        if not texts:
            raise RequestError("text_input is empty", param="text_input")
        return list(texts)
    assert ids is not None  # nosec B101 # narrows a type
    flat: list[int] = ids.flatten().tolist()
    sizes: list[int] = [len(flat)] if lengths is None else lengths.flatten().tolist()
    if not sizes or min(sizes) < 1 or sum(sizes) != len(flat):
        raise RequestError(
            "input_lengths must have the number of ids of each prompt, at least 1, and all of input_ids",
            param="input_ids",
        )
    ends = list(accumulate(sizes))
    return [flat[end - size : end] for size, end in zip(sizes, ends, strict=True)]
