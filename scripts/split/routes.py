# SPDX-License-Identifier: Apache-2.0
"""Sort a checkpoint's tensors into language model, vision tower and projector by the beginnings of their names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from scripts.split.errors import SplitError, listed

# (beginning in the checkpoint, part, beginning within the part); the first that fits counts.
Route = tuple[str, str, str]

# As transformers keeps these models since 4.52, and as it wrote and still writes them.
TRANSFORMERS: tuple[Route, ...] = (
    ("model.language_model.", "text", "model."),
    ("language_model.model.", "text", "model."),
    ("language_model.lm_head.", "text", "lm_head."),
    ("lm_head.", "text", "lm_head."),
    ("model.vision_tower.", "vision", ""),
    ("vision_tower.", "vision", ""),
    ("model.multi_modal_projector.", "projector", ""),
    ("multi_modal_projector.", "projector", ""),
)
# Buffers that older checkpoints hold and every model computes itself, and a token that only pre-training used.
_COMPUTED = (".rotary_emb.inv_freq", ".position_ids", "embeddings.mask_token")


@dataclass(frozen=True, slots=True)
class Routed:
    """Each part's tensors: name within the part -> name in the checkpoint."""

    text: dict[str, str] = field(default_factory=dict)
    vision: dict[str, str] = field(default_factory=dict)
    projector: dict[str, str] = field(default_factory=dict)


def route(names: Iterable[str], routes: Sequence[Route]) -> Routed:
    """Raises SplitError naming tensors that belong nowhere, or a part that has none."""
    routed, strangers = Routed(), []
    for name in names:
        if name.endswith(_COMPUTED):
            continue
        found = next((entry for entry in routes if name.startswith(entry[0])), None)
        if found is None:
            strangers.append(name)
            continue
        before, part, after = found
        getattr(routed, part)[after + name.removeprefix(before)] = name
    if strangers:
        raise SplitError(f"the checkpoint has tensors that this layout does not know: {listed(strangers)}.")
    for part in ("text", "vision", "projector"):
        if not getattr(routed, part):
            begins = " or ".join(entry[0] for entry in routes if entry[1] == part)
            raise SplitError(f"the checkpoint has no {part} tensors (names that begin with {begins}).")
    return routed
