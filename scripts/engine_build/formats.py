# SPDX-License-Identifier: Apache-2.0
"""Number formats of an engine's weights and KV cache, under the names of NVIDIA's `quantize.py --qformat`."""

from dataclasses import dataclass

# Compute capabilities: the first generation of GPUs with arithmetic of that type.
BFLOAT16_GPUS, FP8_GPUS = (8, 0), (8, 9)


@dataclass(frozen=True, slots=True)
class Format:
    """A number format.

    weight_bits: of the layers' weights; embedding and head keep 16. kv_cache: None for the engine's dtype.
    calibrated: whether scales are found by running prompts. gpus: the least compute capability.
    """

    weight_bits: int
    kv_cache: str | None = None
    calibrated: bool = False
    gpus: tuple[int, int] = (0, 0)


UNQUANTISED = "full_prec"
FORMATS = {
    UNQUANTISED: Format(16),
    "int8_wo": Format(8),
    "int4_awq": Format(4, calibrated=True),
    "fp8": Format(8, kv_cache="fp8", calibrated=True, gpus=FP8_GPUS),
    "int8_sq": Format(8, kv_cache="int8", calibrated=True),
}
# Weights per scale that TensorRT-LLM has kernels for.
AWQ_BLOCK_SIZES = (64, 128)
