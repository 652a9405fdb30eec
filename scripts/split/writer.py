# SPDX-License-Identifier: Apache-2.0
"""Write safetensors files one tensor at a time.

A file is a header with all names, dtypes, shapes and offsets, which are known in advance, and then the bytes in order.
So only one tensor is in memory at a time.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from scripts.split.plan import DTYPES, OutputTensor
from scripts.split.source import INDEX, SINGLE, write_json

Read = Callable[[str], torch.Tensor]
Advance = Callable[[int], None]


def write_weights(
    folder: Path, tensors: Sequence[OutputTensor], dtype: str, shard_bytes: int, read: Read, advance: Advance
) -> None:
    """Write `tensors` in files of at most `shard_bytes`, with an index; a larger tensor is a file of its own.

    dtype: key of DTYPES. read: returns the source tensor of a name. advance: called with the number of written bytes.
    """
    shards = shard(tensors, dtype, shard_bytes)
    if len(shards) == 1:
        write_file(folder / SINGLE, shards[0], dtype, read, advance)
        return
    files = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for file, inside in zip(files, shards, strict=True):
        write_file(folder / file, inside, dtype, read, advance)
    total = sum(tensor.size(dtype) for tensor in tensors)
    weight_map = {tensor.name: file for file, inside in zip(files, shards, strict=True) for tensor in inside}
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def shard(tensors: Iterable[OutputTensor], dtype: str, shard_bytes: int) -> list[list[OutputTensor]]:
    """Divide the tensors, in their order, into shards of at most `shard_bytes`."""
    shards: list[list[OutputTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.size(dtype) > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.size(dtype)
    return shards


def write_file(path: Path, tensors: Sequence[OutputTensor], dtype: str, read: Read, advance: Advance) -> None:
    """Write one safetensors file; raises ValueError if a tensor has another shape than planned."""
    with path.open("wb") as file:
        header = _header(tensors, dtype)
        file.write(len(header).to_bytes(8, "little") + header)
        for tensor in tensors:
            value = tensor.build([read(name) for name in tensor.sources])
            if tuple(value.shape) != tensor.shape:
                raise ValueError(f"{tensor.name} became {tuple(value.shape)} instead of {tensor.shape}")
            value = value.to(DTYPES[dtype][1]).contiguous()
            file.write(value.reshape(-1).view(torch.uint8).numpy().data)
            advance(tensor.size(dtype))


def _header(tensors: Sequence[OutputTensor], dtype: str) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.size(dtype)
        entries[tensor.name] = {"dtype": DTYPES[dtype][0], "shape": tensor.shape, "data_offsets": [offset, end]}
        offset = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    # The data begins at a multiple of eight, for readers that map the file.
    return header + b" " * (-len(header) % 8)
