# SPDX-License-Identifier: Apache-2.0
"""The interface between the Triton model `embedding` and an engine that runs a pooling model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

# A prompt: a text, or its token ids.
Prompt = str | list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingRequest:
    """Prompts to embed, or pairs of texts to score.

    pairs: the text that each prompt is scored against, as many as there are prompts; one prompt is scored against each
    of them. None for embeddings.
    dimensions: length of the embeddings, for models trained for several (Matryoshka); None for the full length.
    truncate_prompt_tokens: tokens to cut longer prompts to; -1 is the context length, None refuses them.
    request_id: Triton's, for logs.
    """

    prompts: Sequence[Prompt]
    pairs: Sequence[str] | None = None
    dimensions: int | None = None
    truncate_prompt_tokens: int | None = None
    request_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """The results of one request.

    num_input_tokens: of each prompt or pair, special tokens included.
    embeddings: FP32 [prompts, dimensions], or None for pairs. scores: FP32 [pairs], or None for embeddings.
    """

    num_input_tokens: list[int]
    embeddings: npt.NDArray[np.float32] | None = None
    scores: npt.NDArray[np.float32] | None = None


class PoolingEngine(Protocol):
    """An engine that embeds and scores. Every method is called on one event loop."""

    @property
    def max_model_len(self) -> int:
        """The context length in tokens; only after `start`."""

    async def start(self) -> None:
        """Load the model; raises an error with a readable message if the options are wrong."""

    async def pool(self, request: PoolingRequest) -> Pooled:
        """Compute the results. Cancelling the task ends the request in the engine.

        Raises RequestError if the engine refuses the request.
        """

    def statistics(self) -> Mapping[str, float]:
        """The current values of those of `engine.STATISTICS` that the engine has."""

    def shutdown(self) -> None:
        """Stop the engine and its processes."""
