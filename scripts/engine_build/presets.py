# SPDX-License-Identifier: Apache-2.0
"""Sizes that engines are built for: those of grps-trtllm's documents, one per family."""

from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Preset:
    """What `trtllm-build` is told; lengths in tokens.

    max_batch_size: requests that run together. max_input_len: of one prompt. max_seq_len: prompt and answer.
    max_num_tokens: prompt tokens of one step, all requests together. max_tiles: image tiles of one request.
    """

    dtype: str = "bfloat16"
    max_batch_size: int = 16
    max_input_len: int = 32256
    max_seq_len: int = 32768
    max_num_tokens: int = 32256
    max_tiles: int = 0
    tp_size: int = 1
    pp_size: int = 1

    def changed(self, **values: Any) -> "Preset":
        """With the values that are not None."""
        return replace(self, **{key: value for key, value in values.items() if value is not None})


PRESETS = {
    "qwen3": Preset(),
    # Its document turns fused attention off, which would leave the engine without KV reuse and chunked context, and
    # names flags that trtllm-build has lost: `--max_output_len 512` is in max_seq_len, `--use_custom_all_reduce` has no
    # successor. max_num_tokens is the default of trtllm-build.
    "qwen2-4gpu": Preset("float16", max_input_len=2048, max_seq_len=2560, max_num_tokens=8192, tp_size=4),
    # Two images of 13 tiles in each of two requests.
    "internvl2_5": Preset(max_batch_size=2, max_input_len=32768, max_seq_len=36960, max_num_tokens=32768, max_tiles=26),
    "gemma3": Preset(max_input_len=64512, max_seq_len=65536, max_num_tokens=64512),
}
DEFAULT_PRESET = "qwen3"
# What each option may change, in the order of the help.
SIZES = tuple(field.name for field in fields(Preset))
