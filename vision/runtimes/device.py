# SPDX-License-Identifier: Apache-2.0
"""Find the engine file and the device that the options name, for all runtimes."""

from pathlib import Path

import torch

from vision.options import VitOptions


def find_engine_file(options: VitOptions, default: str, advice: str) -> Path:
    """Find the `engine_file` of the options, or else `default` in the vision folder.

    Raises ValueError with the advice if there is no such file.
    """
    path = options.engine_file or options.vision / default
    if not path.is_file():
        raise ValueError(f"vit: runtime '{options.runtime}' finds no '{path}': {advice}")
    return path


def find_device(options: VitOptions) -> torch.device:
    """Find the device to run on; "auto" is the first GPU, or the CPU without one.

    Raises ValueError if the device does not exist.
    """
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
    """Set the number of CPU threads that torch uses; by default one if the tower runs on a GPU.

    Only copying is left to the CPU then, and waking threads for it took 3.6 ms of a run on 32 cores.
    """
    threads = 1 if options.threads is None and device.type == "cuda" else options.threads
    if threads is not None:
        torch.set_num_threads(threads)
