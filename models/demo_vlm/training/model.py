# SPDX-License-Identifier: Apache-2.0
"""The complete model in PyTorch: vision tower, projector and the adapted language model."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from models.demo_vlm.adapter import adapt
from models.demo_vlm.layout import LORA_SCALE, VISION_CONFIG
from models.demo_vlm.naming import LANGUAGE_PREFIX, VISION_PREFIX
from models.demo_vlm.training.feed import Batch
from models.demo_vlm.training.painting import CLASSES
from models.demo_vlm.training.vision import Vision


class DemoModel(nn.Module):
    """The demo model with `heads` that classify what each patch shows; they are only used in training."""

    def __init__(self, checkpoint: Path, dtype: torch.dtype = torch.bfloat16) -> None:
        """Load the language model from its folder `checkpoint`, with weights of type `dtype`; the rest is random."""
        super().__init__()
        self.language: Any = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype)  # nosec B615 # a local folder
        self.language.requires_grad_(False)
        self._adapted = adapt(self.language)
        self.vision = Vision()
        self.heads = nn.Linear(VISION_CONFIG["hidden_size"], sum(CLASSES))

    @contextmanager
    def unchanged(self) -> Iterator[None]:
        """Switch the adapter off within the context."""
        self._set_scale(0.0)
        try:
            yield
        finally:
            self._set_scale(LORA_SCALE)

    def _set_scale(self, value: float) -> None:
        for layer in self._adapted:
            layer.scale.fill_(value)

    def embeddings(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Compute the input embeddings [batch, length, hidden], and the patch logits or None without tiles."""
        embedded = self.language.get_input_embeddings()(batch.ids)
        if not len(batch.tiles):
            return embedded, None
        patches = self.vision.patches(batch.tiles)
        return _placed(embedded, self.vision.project(patches), batch.image_index), self.heads(patches)

    def embed(self, ids: Tensor, tiles: Tensor, image_id: int) -> Tensor:
        """Compute the input embeddings [batch, length, hidden] of prompts. tiles: of all prompts in order."""
        embedded: Tensor = self.language.get_input_embeddings()(ids)
        if not len(tiles):
            return embedded
        rows = self.vision.project(self.vision.patches(tiles))
        return _placed(embedded, rows, (ids.flatten() == image_id).nonzero().flatten())

    def logits(self, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """Compute the logits of the targets [n, vocabulary], and the patch logits or None without tiles."""
        embedded, patch_logits = self.embeddings(batch)
        with torch.autocast(embedded.device.type, enabled=False):
            hidden = self.language.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
            chosen = hidden.flatten(0, 1).index_select(0, batch.target_index)
            return self.language.lm_head(chosen), patch_logits


def _placed(embedded: Tensor, rows: Tensor, index: Tensor) -> Tensor:
    """Insert the tiles' rows at the flat positions `index` of the embeddings."""
    flat = embedded.flatten(0, 1).index_copy(0, index, rows.flatten(0, 1).to(embedded.dtype))
    return flat.view_as(embedded)


def answer_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the cross entropy of the answers' tokens."""
    return F.cross_entropy(logits.float(), targets)


def patch_loss(patch_logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the loss of the heads, summed over shape, colour and character.

    patch_logits: [tiles, patches, classes]. labels: uint8 [tiles, 3, patches, patches]. Each term is the mean over all
    patches. Shapes and characters have a second term, the mean over the patches that show one, because few patches do.
    """
    flat = labels.flatten(2).long()
    parts = torch.split(patch_logits.float(), list(CLASSES), dim=-1)
    kinds = [F.cross_entropy(part.transpose(1, 2), flat[:, kind], reduction="none") for kind, part in enumerate(parts)]
    rare = [_mean_where(kinds[kind], flat[:, kind] > 0) for kind in (0, 2)]
    return torch.stack([*(losses.mean() for losses in kinds), *rare]).sum()


def _mean_where(losses: Tensor, chosen: Tensor) -> Tensor:
    return (losses * chosen).sum() / chosen.sum().clamp(min=1)


def weights(model: DemoModel) -> dict[str, Tensor]:
    """Collect the trained tensors in bf16: `vision.*` and `language.*.{down,up}`."""
    kept = {f"{VISION_PREFIX}{name}": value for name, value in model.vision.state_dict().items()}
    kept |= {f"{LANGUAGE_PREFIX}{name}": value for name, value in _adapters(model).items()}
    return {name: value.detach().to("cpu", torch.bfloat16).contiguous() for name, value in kept.items()}


def _adapters(model: DemoModel) -> dict[str, Tensor]:
    return {name: value for name, value in model.language.named_parameters() if name.endswith((".down", ".up"))}


def save_weights(model: DemoModel, folder: Path) -> None:
    """Write `vision.safetensors` and `language.safetensors`; each replaces the old file atomically."""
    tensors = weights(model)
    for prefix in (VISION_PREFIX, LANGUAGE_PREFIX):
        part = {name: value for name, value in tensors.items() if name.startswith(prefix)}
        partial = folder / f".{prefix}partial"
        save_file(part, partial)
        partial.chmod(0o644)
        partial.replace(folder / f"{prefix}safetensors")


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a weights file, or the two files in the folder of a training run."""
    files = [path] if path.is_file() else [path / f"{prefix}safetensors" for prefix in (VISION_PREFIX, LANGUAGE_PREFIX)]
    return {name: value for file in files for name, value in load_file(file).items()}


def load_weights(model: DemoModel, tensors: dict[str, Tensor]) -> None:
    """Copy the tensors into the model. Raises KeyError or RuntimeError if names or shapes differ."""
    vision = {
        name.removeprefix(VISION_PREFIX): value for name, value in tensors.items() if name.startswith(VISION_PREFIX)
    }
    model.vision.load_state_dict(vision)
    with torch.no_grad():
        for name, value in _adapters(model).items():
            value.copy_(tensors[f"{LANGUAGE_PREFIX}{name}"])
