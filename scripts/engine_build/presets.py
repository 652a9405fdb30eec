# SPDX-License-Identifier: Apache-2.0
"""Presets of engine sizes, one per family, from grps-trtllm's documents."""

from dataclasses import dataclass, fields, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Preset:
    """Sizes for `trtllm-build`; lengths in tokens.

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
        """Return a copy with those values that are not None."""
        return replace(self, **{key: value for key, value in values.items() if value is not None})


PRESETS = {
    "qwen3": Preset(),
    # The document disables fused attention, but KV reuse and chunked context require it. It also has flags that no
    # longer exist: `--max_output_len 512` is part of max_seq_len, `--use_custom_all_reduce` has no successor.
    # max_num_tokens is the default of trtllm-build.
    "qwen2-4gpu": Preset("float16", max_input_len=2048, max_seq_len=2560, max_num_tokens=8192, tp_size=4),
    # Two requests with two images of 13 tiles each.
    "internvl2_5": Preset(max_batch_size=2, max_input_len=32768, max_seq_len=36960, max_num_tokens=32768, max_tiles=26),
    "gemma3": Preset(max_input_len=64512, max_seq_len=65536, max_num_tokens=64512),
}
DEFAULT_PRESET = "qwen3"
# Names of the sizes, which are also options, in the order of the help.
SIZES = tuple(field.name for field in fields(Preset))
