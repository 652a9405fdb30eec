# SPDX-License-Identifier: Apache-2.0
"""The runtimes of the Triton model `vit`, by the config parameter `runtime`."""

import importlib

from vision.options import VitOptions
from vision.runtimes.runtime import VisionRuntime

# name -> (module, class). Only the chosen module is imported, because each needs its own packages.
RUNTIMES = {
    "torch": ("vision.runtimes.torch_runtime", "TorchRuntime"),
    "onnxruntime": ("vision.runtimes.onnx_runtime", "OnnxRuntime"),
    "tensorrt": ("vision.runtimes.tensorrt_runtime", "TensorRtRuntime"),
}
PACKAGES = {
    "torch": "torch safetensors",
    "onnxruntime": "onnxruntime (onnxruntime-gpu for NVIDIA GPUs)",
    "tensorrt": "tensorrt, of the release that built the engine",
}


def build_runtime(options: VitOptions) -> VisionRuntime:
    """Load and warm up the runtime that the options name.

    Raises ValueError that says what to install, build or set if it cannot run.
    """
    if options.runtime not in RUNTIMES:
        raise ValueError(f"vit: unknown runtime '{options.runtime}'; known: {', '.join(sorted(RUNTIMES))}")
    module, name = RUNTIMES[options.runtime]
    try:
        runtime_class = getattr(importlib.import_module(module), name)
    except ImportError as error:
        needed = PACKAGES[options.runtime]
        raise ValueError(f"vit: runtime '{options.runtime}' needs a package ({error}): install {needed}") from error
    runtime: VisionRuntime = runtime_class(options)
    return runtime
