# SPDX-License-Identifier: Apache-2.0
"""Combine the files of a training run into the weights file of the repository."""

import argparse
import sys
from pathlib import Path

from safetensors.torch import save_file

from models.demo_vlm.layout import WEIGHTS
from models.demo_vlm.training.model import read_weights


def main() -> int:
    """Write the weights file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the folder that train.py wrote")
    save_file(read_weights(parser.parse_args().run), WEIGHTS)
    WEIGHTS.chmod(0o644)
    return 0


if __name__ == "__main__":
    sys.exit(main())
