# SPDX-License-Identifier: Apache-2.0
"""Attention within a tile as one Triton kernel with online softmax (FlashAttention, arXiv 2205.14135).

General kernels work in blocks of 128 keys and of 128 or 192 queries. A tile of InternViT has 1,024 patches and a class
token, which then needs a ninth block that is nearly all padding. Here the class token's key initialises the running
sums, and no key is padded.
"""

import math

import torch
import triton
import triton.language as tl

# The faster of 64 and 128 on an H200: 149 us for 13 tiles of InternViT-300M. cuDNN takes 200 us.
ROWS = KEYS = tl.constexpr(64)
# Queries in the last block, which has only one row left; 16 is the minimum of a matrix product.
LAST_ROWS = tl.constexpr(16)
STAGES = tl.constexpr(3)
WARPS = 4
# With InternViT-6B's heads of size 128 cuDNN is faster.
HEAD_SIZE = 64
HOPPER = 9
# Maximum number of programs along the second axis of a CUDA grid.
MAX_TILE_HEADS = 65535


def is_supported(qkv: torch.Tensor, heads: int) -> bool:
    """Whether the kernel was measured to be the fastest for this [n, t, 3 * heads * size] on its GPU."""
    return (
        qkv.is_cuda
        and qkv.dtype in (torch.bfloat16, torch.float16)
        and qkv.shape[2] == 3 * heads * HEAD_SIZE
        and qkv.shape[1] % KEYS.value == 1
        and qkv.shape[0] * heads <= MAX_TILE_HEADS
        and torch.cuda.get_device_capability(qkv.device)[0] == HOPPER
    )


def attend(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """Compute attention: queries, keys and values [n, t, 3 * heads * size] -> [n, t, heads * size].

    qkv: contiguous. t must be one more than a multiple of 64, size a power of two.
    """
    n, tokens, width = qkv.shape
    width //= 3
    out = qkv.new_empty(n, tokens, width)
    size = width // heads
    # Scales the scores for exp2.
    scale = math.log2(math.e) / math.sqrt(size)
    blocks = triton.cdiv(tokens, ROWS.value)
    _attend[blocks, n * heads](qkv, out, tokens, heads, size, scale, num_warps=WARPS)
    return out


# The lengths are compile-time constants: the kernel took a sixth longer with run-time values.
@triton.jit  # type: ignore[untyped-decorator]  # Triton is not installed where types are checked
def _attend(
    qkv: tl.tensor,
    out: tl.tensor,
    tokens: tl.constexpr,
    heads: tl.constexpr,
    size: tl.constexpr,
    scale: tl.constexpr,
) -> None:
    """Compute one block of queries of one head in one tile."""
    block = tl.program_id(0)
    head = tl.program_id(1) % heads
    # A large batch has more elements than 32 bits can count.
    tile = (tl.program_id(1) // heads).to(tl.int64)
    width: tl.constexpr = heads * size
    qkv += tile * tokens * 3 * width + head * size
    out += tile * tokens * width + head * size
    if block < tokens // ROWS:
        _attend_rows(qkv, out, block * ROWS, ROWS, tokens, width, size, scale)
    else:
        _attend_rows(qkv, out, block * ROWS, LAST_ROWS, tokens, width, size, scale)


@triton.jit  # type: ignore[untyped-decorator]  # Triton is not installed where types are checked
def _attend_rows(
    qkv: tl.tensor,
    out: tl.tensor,
    first: tl.tensor,
    rows: tl.constexpr,
    tokens: tl.constexpr,
    width: tl.constexpr,
    size: tl.constexpr,
    scale: tl.constexpr,
) -> None:
    """Compute `rows` queries from `first`; those past the end are neither read nor written."""
    dims = tl.arange(0, size)
    row = first + tl.arange(0, rows)
    inside = (row < tokens)[:, None]
    queries = tl.load(qkv + row[:, None] * 3 * width + dims[None, :], mask=inside, other=0.0)
    # The class token: its score is the first maximum, so that its weight is one and its value the first sum.
    class_key = tl.load(qkv + width + dims).to(tl.float32)
    class_value = tl.load(qkv + 2 * width + dims).to(tl.float32)
    highest = tl.sum(queries.to(tl.float32) * class_key[None, :], 1) * scale
    weights = tl.full([rows], 1.0, tl.float32)
    sums = tl.zeros([rows, size], tl.float32) + class_value[None, :]
    key = 1 + tl.arange(0, KEYS)
    keys = qkv + width + key[None, :] * 3 * width + dims[:, None]
    values = qkv + 2 * width + key[:, None] * 3 * width + dims[None, :]
    for _ in tl.range(1, tokens, KEYS, num_stages=STAGES):
        scores = tl.dot(queries, tl.load(keys))
        higher = tl.maximum(highest, tl.max(scores, 1) * scale)
        shares = tl.exp2(scores * scale - higher[:, None])
        shrunk = tl.exp2(highest - higher)
        weights = weights * shrunk + tl.sum(shares, 1)
        sums = sums * shrunk[:, None]
        block = tl.load(values)
        sums = tl.dot(shares.to(block.dtype), block, sums)
        highest = higher
        keys += KEYS * 3 * width
        values += KEYS * 3 * width
    rounded = (sums / weights[:, None]).to(out.dtype.element_ty)
    tl.store(out + row[:, None] * width + dims[None, :], rounded, mask=inside)
