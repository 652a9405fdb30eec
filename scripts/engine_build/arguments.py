# SPDX-License-Identifier: Apache-2.0
"""The options of `triton-chat build engine`."""

import argparse
from pathlib import Path

from scripts.engine_build.formats import FORMATS, UNQUANTISED
from scripts.engine_build.presets import PRESETS

ABOUT = """Build a TensorRT-LLM engine from a Hugging Face checkpoint with NVIDIA's own tools: convert_checkpoint.py or
quantize.py, then trtllm-build. Checks everything first and prints the commands. The engine's folder appears only when
it is complete, with a manifest that the server checks. Rerun the same command to resume after a failure.

Run it in the image that will serve the engine, on the kind of GPU that will run it."""
EXAMPLE = """examples:
  triton-chat build engine /models/Qwen3-8B --output /engines/qwen3-8b --qformat fp8
  triton-chat build engine /models/Qwen2-7B --output /engines/qwen2-7b --preset qwen2-4gpu --dry-run"""
_SIZES = {
    "--max-batch-size": "requests that run together",
    "--max-input-len": "tokens of a prompt",
    "--max-seq-len": "tokens of prompt and answer",
    "--max-num-tokens": "prompt tokens of one step, all requests together",
    "--max-tiles": "image tiles of one request; max_multimodal_len is batch size x tiles x tokens of a tile",
    "--tp-size": "GPUs that share each layer (tensor parallel)",
    "--pp-size": "groups of GPUs that divide the layers (pipeline parallel)",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command; sizes that are not given are the preset's."""
    parser.add_argument(
        "folder",
        type=Path,
        metavar="MODEL",
        help="a checkpoint's folder, or a model as `serve` takes it: a name or a hub id; for InternVL the folder that "
        "`prepare` prints",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder to write the engine to")
    parser.add_argument("--preset", choices=PRESETS, help="sizes (default: by the model's family)")
    parser.add_argument(
        "--qformat",
        choices=FORMATS,
        default=UNQUANTISED,
        help="format of the weights (default: %(default)s, as stored)",
    )
    parser.add_argument("--awq-block-size", type=int, default=128, help="weights per scale (default: %(default)s)")
    parser.add_argument(
        "--calib-dataset",
        metavar="DATA",
        help="texts for calibration: a folder with a `train` split and a `text` column, or a hub id (default: NVIDIA's "
        "tool takes cnn_dailymail from the hub)",
    )
    parser.add_argument("--dtype", choices=("bfloat16", "float16"), help="of everything that is not quantised")
    for flag, help_ in _SIZES.items():
        parser.add_argument(flag, type=int, metavar="N", help=help_)
    parser.add_argument("--examples", type=Path, metavar="DIR", help="TensorRT-LLM's examples (default: the image's)")
    parser.add_argument("--dry-run", action="store_true", help="check, print the commands, and build nothing")
    parser.add_argument(
        "--keep-checkpoint", action="store_true", help="leave OUTPUT.work with TensorRT-LLM's checkpoint"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing engine")
