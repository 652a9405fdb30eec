# SPDX-License-Identifier: Apache-2.0
"""What the runtimes share: the engine file and the device that the options mean."""

from pathlib import Path

import torch

from vision.options import VitOptions


def find_engine_file(options: VitOptions, default: str, advice: str) -> Path:
    """The `engine_file` of the options, else `default` in the vision folder; raises ValueError with the advice."""
    path = options.engine_file or options.vision / default
    if not path.is_file():
        raise ValueError(f"vit: runtime '{options.runtime}' finds no '{path}': {advice}")
    return path


def find_device(options: VitOptions) -> torch.device:
    """Where to run; "auto" is the first GPU where there is one. Raises ValueError for a device that is not there."""
    if options.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(options.device)
    except RuntimeError:
        raise ValueError(f"vit: unknown device '{options.device}'; known: auto, cpu, cuda, cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"vit: there is no device '{options.device}': torch {torch.__version__} sees "
            f"{torch.cuda.device_count()} GPUs; set TRITON_CHAT_VIT_DEVICE, or install a CUDA build of torch"
        )
    return device


def limit_threads(options: VitOptions, device: torch.device) -> None:
    """Have torch's operations on the CPU take the threads of the options; by default one where a GPU computes.

    All that is left to the CPU then is copying, and to wake threads for it took 3.6 ms of a run on 32 cores.
    """
    threads = 1 if options.threads is None and device.type == "cuda" else options.threads
    if threads is not None:
        torch.set_num_threads(threads)
