# SPDX-License-Identifier: Apache-2.0
"""Sort a checkpoint's tensors into language model, vision tower and projector by the prefixes of their names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from scripts.split.errors import SplitError, listed

# (prefix in the checkpoint, part, prefix within the part); the first match counts.
Route = tuple[str, str, str]

# The names in memory since transformers 4.52, and those in the files that it writes.
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
# Ignored: buffers of older checkpoints, which every model computes itself, and a token of pre-training.
_COMPUTED = (".rotary_emb.inv_freq", ".position_ids", "embeddings.mask_token")


@dataclass(frozen=True, slots=True)
class Routed:
    """The tensors of each part: name within the part -> name in the checkpoint."""

    text: dict[str, str] = field(default_factory=dict)
    vision: dict[str, str] = field(default_factory=dict)
    projector: dict[str, str] = field(default_factory=dict)


def route(names: Iterable[str], routes: Sequence[Route]) -> Routed:
    """Sort the names by part; raises SplitError naming tensors that match no route, or a part without tensors."""
    routed, unknown = Routed(), []
    for name in names:
        if name.endswith(_COMPUTED):
            continue
        found = next((each for each in routes if name.startswith(each[0])), None)
        if found is None:
            unknown.append(name)
            continue
        before, part, after = found
        getattr(routed, part)[after + name.removeprefix(before)] = name
    if unknown:
        raise SplitError(f"the checkpoint has tensors that this layout does not know: {listed(unknown)}.")
    for part in ("text", "vision", "projector"):
        if not getattr(routed, part):
            begins = " or ".join(each[0] for each in routes if each[1] == part)
            raise SplitError(f"the checkpoint has no {part} tensors (names that begin with {begins}).")
    return routed
