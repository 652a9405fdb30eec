# SPDX-License-Identifier: Apache-2.0
"""The interface of an engine: prompt ids in, streamed ids out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch

from common.errors import RequestError
from common.finish_reason import FinishReason
from common.sampling import SamplingFields
from engines.adapters import AdapterTable
from engines.peers import Peers

# Name -> description, for Triton's metrics endpoint. "_total" marks counters.
STATISTICS = {
    "running": "Requests that the engine is processing",
    "waiting": "Requests waiting inside the engine, for their first step or after a preemption",
    "kv_cache_usage": "Share of the KV cache in use after the engine's last step, 0 to 1",
    "kv_cache_blocks": "Blocks of the KV cache",
    "kv_cache_block_size": "Tokens in a block of the KV cache",
    "looked_up_prompt_tokens_total": "Prompt tokens looked up in the prefix cache",
    "cached_prompt_tokens_total": "Prompt tokens served from the prefix cache",
    "generated_tokens_total": "Generated tokens, including those of cancelled requests",
    "preemptions_total": "Requests preempted because the KV cache was full",
    "drafts_total": "Drafts of speculative decoding that the model has checked",
    "draft_tokens_total": "Tokens of these drafts",
    "accepted_draft_tokens_total": "Tokens of these drafts that the model accepted",
}


class Once:
    """A large tensor for one reader, which nobody else keeps in memory after that."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor: torch.Tensor | None = tensor

    def take(self) -> torch.Tensor:
        """Return the tensor; only once."""
        tensor, self._tensor = self._tensor, None
        assert tensor is not None, "it was taken before"  # nosec B101 # narrows a type, checks no input
        return tensor


@dataclass(frozen=True, slots=True)
class Generation(SamplingFields):
    """One prompt and how to continue it.

    prompt_ids: ids at or above the vocabulary size are rows of `prompt_table` (row = id - vocabulary size).
    end_id: the id that ends the answer; -1 for none.
    stop_words, bad_words: id sequences.
    embedding_bias: FP32 [vocabulary size], added to the logits.
    top_logprobs: alternatives per token; the token's own log-probability comes whenever `return_log_probs`.
    prompt_logprobs: alternatives per prompt token, or None for no prompt log-probabilities.
    return_prompt_ids: send the prompt's ids with the first response.
    prompt_table: [rows, hidden size], the model's dtype.
    images: UINT8 [n, height, width, 3], RGB, of the model's image size, in the order of their runs of image tokens in
    `prompt_ids`; for an engine with its own vision tower.
    multimodal: UINT8 [bytes], what the checkpoint's own processor made of the prompt's pictures and videos; or the
    pictures themselves (common.raw_pictures), for an engine with that processor.
    prompt_extra_ids: one per prompt id, 0 for text; at an image's position a hash of the image.
    lora_task_id: id of the adapter, None for the base alone.
    allowed_token_ids: the only ids that the answer may have; empty for all.
    cache_salt: the prefix cache is shared only by prompts with the same one.
    traceparent: the trace that the generation is part of, as W3C writes it.
    request_id: Triton's, for logs; several generations may share it.
    guide_type: json, json_schema, regex, ebnf_grammar or structural_tag, with its `guide`.
    """

    prompt_ids: list[int]
    max_tokens: int
    end_id: int = -1
    stop_words: list[list[int]] = field(default_factory=list)
    bad_words: list[list[int]] = field(default_factory=list)
    embedding_bias: torch.Tensor | None = None
    return_log_probs: bool = False
    top_logprobs: int = 0
    prompt_logprobs: int | None = None
    return_prompt_ids: bool = False
    priority: int = 0
    allowed_token_ids: tuple[int, ...] = ()
    cache_salt: str | None = None
    prompt_table: torch.Tensor | None = None
    images: torch.Tensor | None = None
    multimodal: Once | None = None
    prompt_extra_ids: list[int] | None = None
    guide_type: str | None = None
    guide: str | None = None
    streaming: bool = True
    lora_task_id: int | None = None
    traceparent: str | None = None
    request_id: str = ""


# Fields of Tokens that one response of a generation has.
_ONCE = (
    *("prompt_ids", "prompt_logprobs", "prompt_ranks", "cached_tokens", "prompt_tokens"),
    *("draft_tokens", "accepted_draft_tokens", "finish"),
)


@dataclass(slots=True)
class Tokens:
    """New ids of one generation.

    logprobs: one per id. top_ids, top_logprobs: one row per id.
    prompt_ids, prompt_logprobs: with the first response, one row per prompt token, the token itself in column 0;
    the first token's log-probability is NaN. prompt_ids may come without prompt_logprobs. prompt_ranks: the place of
    each of the prompt's own tokens among all of the vocabulary, best is 1; 0 for the first.
    finish: set on the last response. cached_tokens: prompt tokens found in the KV cache, on the first response.
    prompt_tokens: the prompt's length, on the first response, if the engine itself has put in the tokens of pictures.
    draft_tokens, accepted_draft_tokens: of speculative decoding, for the whole generation, on the last response.
    """

    ids: list[int]
    logprobs: list[float] | None = None
    top_ids: list[list[int]] | None = None
    top_logprobs: list[list[float]] | None = None
    prompt_ids: list[list[int]] | None = None
    prompt_logprobs: list[list[float]] | None = None
    prompt_ranks: list[int] | None = None
    cached_tokens: int | None = None
    prompt_tokens: int | None = None
    draft_tokens: int | None = None
    accepted_draft_tokens: int | None = None
    finish: FinishReason | None = None

    def extend(self, later: "Tokens") -> None:
        """Append the next tokens of the same generation."""
        self.ids = self.ids + later.ids
        for rows in ("logprobs", "top_ids", "top_logprobs"):
            if getattr(later, rows) is not None:
                setattr(self, rows, (getattr(self, rows) or []) + getattr(later, rows))
        for once in _ONCE:
            if getattr(self, once) is None:
                setattr(self, once, getattr(later, once))


# Takes the new tokens of a generation.
Put = Callable[[Tokens], None]


class Engine(Protocol):
    """An LLM engine, built by `registry.build_engine`. Every method is called on one event loop.

    adapters: its LoRA adapters, None if it was started without.
    """

    adapters: AdapterTable | None

    async def start(self) -> None:
        """Load the model; raises an error with a readable message if the options are wrong."""

    async def generate(self, generation: Generation, put: Put) -> None:
        """Generate a continuation, and return after its end. Cancelling the task ends it in the engine.

        put: called on the loop with the new tokens, and not after those with `finish`. A call for each output instead
        of a queue saves the loop a change of tasks for every token. Raises RequestError if the engine refuses.
        """

    def statistics(self) -> Mapping[str, float]:
        """The current values of those STATISTICS that the engine has."""

    def adapters_in_use(self) -> Mapping[str, Any]:
        """The values of `common.engine_statistics.LORA`; empty without LoRA adapters."""

    def shutdown(self) -> None:
        """Stop the engine and its processes."""


def engine_failure() -> RequestError:
    """The error of a request that the engine failed on by itself. The log has the cause, which clients are not told."""
    return RequestError("the engine failed on this request", kind="internal")


@runtime_checkable
class SharedEngine(Protocol):
    """An engine that several processes can use together; each has an object of its own."""

    async def start_with(self, peers: Peers) -> None:
        """Load the model in the first of the processes, or connect to it in another; raises errors as `start`."""

    def report(self) -> Any:
        """What this process knows of the engine's statistics, as JSON can hold it."""

    def shared_statistics(self, reports: Sequence[Any]) -> Mapping[str, Any]:
        """The values of `statistics` and `adapters_in_use` of all processes. reports: those of the others."""

    def disconnect(self) -> None:
        """End the running requests with an error: the first process has ended, and the engine with it."""
