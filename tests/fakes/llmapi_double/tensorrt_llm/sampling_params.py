# SPDX-License-Identifier: Apache-2.0
"""SamplingParams and GuidedDecodingParams with their fields and defaults; the double also checks types."""

from dataclasses import dataclass, fields
from typing import Any, get_type_hints

import torch


def check_types(value: Any) -> None:
    hints = get_type_hints(type(value))
    for one in fields(value):
        given, hint = getattr(value, one.name), hints[one.name]
        allowed = tuple(getattr(part, "__origin__", part) for part in getattr(hint, "__args__", (hint,)))
        if float in allowed:
            allowed += (int,)
        if not isinstance(given, allowed) or (isinstance(given, bool) and bool not in allowed):
            raise TypeError(f"{type(value).__name__}.{one.name}: {given!r} is not {hint}")


@dataclass(slots=True, kw_only=True)
class GuidedDecodingParams:
    json: str | dict | None = None
    regex: str | None = None
    grammar: str | None = None
    json_object: bool = False
    structural_tag: str | None = None

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(slots=True, kw_only=True)
class SamplingParams:
    end_id: int | None = None
    pad_id: int | None = None
    max_tokens: int = 32
    bad: str | list | None = None
    bad_token_ids: list | None = None
    stop: str | list | None = None
    stop_token_ids: list | None = None
    include_stop_str_in_output: bool = False
    embedding_bias: torch.Tensor | None = None
    logits_processor: None = None
    apply_batched_logits_processor: bool = False
    n: int = 1
    best_of: int | None = None
    use_beam_search: bool = False
    top_k: int | None = None
    top_p: float | None = None
    top_p_min: float | None = None
    top_p_reset_ids: int | None = None
    top_p_decay: float | None = None
    seed: int | None = None
    temperature: float | None = None
    min_tokens: int | None = None
    beam_search_diversity_rate: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    # Of 1.3; None stands for their own defaults.
    prompt_ignore_length: int | None = None
    logprobs_mode: str | None = None
    logprobs_simple_format: bool = False
    prompt_logprobs_simple_format: bool = False
    thinking_token_budget: int | None = None
    length_penalty: float | None = None
    early_stopping: int | None = None
    no_repeat_ngram_size: int | None = None
    min_p: float | None = None
    beam_width_array: list | None = None
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    return_context_logits: bool = False
    return_generation_logits: bool = False
    exclude_input_from_output: bool = True
    return_encoder_output: bool = False
    return_perf_metrics: bool = False
    additional_model_outputs: list | None = None
    lookahead_config: None = None
    guided_decoding: GuidedDecodingParams | None = None
    ignore_eos: bool = False
    detokenize: bool = True
    add_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True

    def __post_init__(self) -> None:
        guide = self.guided_decoding
        given = [bool(getattr(guide, one.name)) for one in fields(guide)] if guide else []
        if sum(given) > 1:
            raise ValueError(f"Only one guide can be used for a request, but got {sum(given)}.")
        for name in ("temperature", "top_k", "top_p"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"require {name} >= 0, got {name}={getattr(self, name)}")
        self.pad_id = self.end_id if self.pad_id is None else self.pad_id
        self.best_of = self.best_of or self.n
        check_types(self)

    @property
    def greedy(self) -> bool:
        return (self.top_k is None or self.top_k == 1) and (self.top_p is None or self.top_p == 0.0)
