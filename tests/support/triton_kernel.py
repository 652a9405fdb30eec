# SPDX-License-Identifier: Apache-2.0
"""Check the vision tower's kernel with Triton: `python triton_kernel.py CHECK` prints one line of JSON."""

import json
import math
import sys
from types import SimpleNamespace
from unittest.mock import patch

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vision.towers import internvit, tile_attention

HEADS, SIZE = 3, 64


def attended() -> list[list[float]]:
    """For each case: the largest difference of attention with and without the kernel, and the largest value."""
    found = []
    for patches, tiles, dtype in ((64, 1, torch.float32), (192, 3, torch.float32), (128, 2, torch.float16)):
        torch.manual_seed(patches)
        config = SimpleNamespace(
            hidden_size=HEADS * SIZE, num_attention_heads=HEADS, qk_normalization=False, qkv_bias=True
        )
        attention = internvit.Attention(config).to(dtype)
        x = 3 * torch.randn(tiles, 1 + patches, HEADS * SIZE, dtype=dtype)
        with torch.inference_mode():
            with patch.object(tile_attention, "is_supported", lambda qkv, heads: True):
                with_kernel = attention.attend(x)
            without = attention.attend(x)
        found.append([(with_kernel - without).abs().max().item(), without.abs().max().item()])
    return found


def supported() -> list[bool]:
    """Whether the kernel is used: InternViT-300M on Hopper, then cases that differ in one thing."""
    usual = {"is_cuda": True, "dtype": torch.bfloat16, "shape": (13, 1025, 3072), "device": "cuda:0"}
    shapes = [(13, 1024, 3072), (13, 1025, 6144), (4096, 1025, 3072)]
    others = [{"is_cuda": False}, {"dtype": torch.float32}, *({"shape": shape} for shape in shapes)]
    with patch.object(torch.cuda, "get_device_capability", lambda device: (9, 0)):
        found = [tile_attention.is_supported(SimpleNamespace(**usual | change), 16) for change in [{}, *others]]
    with patch.object(torch.cuda, "get_device_capability", lambda device: (8, 9)):
        return [*found, tile_attention.is_supported(SimpleNamespace(**usual), 16)]


def compiled() -> dict[str, bool | int]:
    """Compile for Hopper and InternViT-300M: whether tensor cores are used, and bytes of shared memory."""
    kernel = tile_attention._attend
    lengths = {"tokens": 1025, "heads": 16, "size": 64, "scale": math.log2(math.e) / 8}
    names = kernel.arg_names
    source = ASTSource(
        fn=kernel,
        signature={"qkv": "*bf16", "out": "*bf16"} | dict.fromkeys(lengths, "constexpr"),
        constexprs={(names.index(name),): value for name, value in lengths.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in ("qkv", "out")},
    )
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": tile_attention.WARPS})
    return {"tensor_cores": "wgmma" in built.asm["ptx"], "shared": built.metadata.shared}


if __name__ == "__main__":
    print(json.dumps({"attended": attended, "supported": supported, "compiled": compiled}[sys.argv[1]]()))
