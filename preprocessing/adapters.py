# SPDX-License-Identifier: Apache-2.0
"""LoRA adapters for NVIDIA's C++ backend, which gets their weights with requests and keeps them in a cache by id.

The weights travel with the first request of an adapter and whenever the cache has dropped it: with each request that
has the parameter SEND_WEIGHTS. Others have the id only.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.adapters import (
    CONFIG,
    PREFIX,
    WEIGHTS,
    Adapter,
    AdapterSource,
    adapter_id,
    check_adapter,
    read_sources,
    scaling,
)
from common.checkpoint import read_json
from common.errors import RequestError

# The backend's number of each module that an adapter may change, by its name in Hugging Face's models.
MODULES = {
    "q_proj": 1,
    "k_proj": 2,
    "v_proj": 3,
    "o_proj": 4,
    "gate_proj": 5,
    "down_proj": 6,
    "up_proj": 7,
}
# The backend has a limit of its own, lora_cache_max_adapter_size.
MAX_RANK = 2**31 - 1
_NAME = re.compile(r".*\.layers\.(?P<layer>\d+)\.(?:self_attn|mlp)\.(?P<module>\w+)\.lora_(?P<side>[AB])\.weight")

# weights: FP16 [rows, width]; config: INT32 [rows, 3] with module, layer and rank of each row.
Packed = tuple[NDArray[np.float16], NDArray[np.int32]]


class BackendAdapters:
    """The adapters that are served, with their weights."""

    def __init__(self, sources: Iterable[AdapterSource], base: Path) -> None:
        self._packed: dict[int, Packed] = {}
        self._by_id: dict[int, Adapter] = {}
        for source in sources:
            try:
                check_adapter(Path(source.path), base, MAX_RANK)
                adapter = Adapter(source.name, adapter_id(source), source.path)
                self._packed[adapter.id] = pack(Path(source.path))
            except (ValueError, OSError) as error:
                raise ValueError(f"LoRA adapter '{source.name}': {error}") from error
            self._by_id[adapter.id] = adapter

    @classmethod
    def read(cls, text: str | None, base: Path) -> "BackendAdapters":
        """Read them from the config's parameter `lora_modules`; raises ValueError naming one that cannot be served."""
        return cls(read_sources(json.loads(text)) if text else (), base)

    def all(self) -> list[Adapter]:
        """Every adapter that requests can choose."""
        return list(self._by_id.values())

    def weights(self, lora_task_id: int) -> Packed:
        """The weights of an adapter; raises RequestError (not_found) if there is no adapter with this id."""
        if lora_task_id not in self._packed:
            raise RequestError(f"There is no adapter with the id {lora_task_id}", kind="not_found", param="model")
        return self._packed[lora_task_id]


def pack(folder: Path) -> Packed:
    """Convert an adapter in PEFT's format to the backend's: a row per module and layer.

    A row is lora_A [rank, inputs], then lora_B [outputs, rank] times its scaling, each flattened, padded with 0.
    Raises ValueError for a module that the backend does not know.
    """
    # It imports torch, for bfloat16; this process does without unless there are adapters.
    from safetensors.torch import load_file

    config = read_json(folder / CONFIG)
    rows: dict[tuple[int, int], dict[str, NDArray[np.float32]]] = {}
    names: dict[tuple[int, int], str] = {}
    for name, tensor in load_file(folder / WEIGHTS).items():
        found = _NAME.fullmatch(name)
        if found is None or found["module"] not in MODULES:
            raise ValueError(f"it changes {name}; TensorRT-LLM's backend has adapters of {', '.join(MODULES)} only")
        key = int(found["layer"]), MODULES[found["module"]]
        rows.setdefault(key, {})[found["side"]] = tensor.float().numpy()
        names[key] = name.removeprefix(PREFIX).rpartition(".lora_")[0]
    packed, numbers = [], []
    for (layer, module), sides in sorted(rows.items()):
        rank = len(sides["A"])
        scale = scaling(config, names[layer, module], rank)
        packed.append(np.concatenate([sides["A"].ravel(), (sides["B"] * scale).ravel()]).astype(np.float16))
        numbers.append([module, layer, rank])
    width = max(map(len, packed))
    padded = np.stack([np.pad(row, (0, width - len(row))) for row in packed])
    return padded, np.array(numbers, np.int32)
