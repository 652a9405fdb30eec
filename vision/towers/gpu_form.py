# SPDX-License-Identifier: Apache-2.0
"""Which form of a tower runs on a GPU."""

from vision.towers.fused_internvit import FusedInternVit
from vision.towers.internvit import InternVit
from vision.towers.tower import Tower


def gpu_form(tower: Tower) -> Tower:
    """Return the tower in the form that is fastest on a GPU; the one passed in must not be used afterwards."""
    return FusedInternVit(tower) if isinstance(tower, InternVit) else tower
