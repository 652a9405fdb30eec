# SPDX-License-Identifier: Apache-2.0
"""The runtimes that can stand behind `vit`, by the config parameter `runtime`."""

import importlib

from vision.options import VitOptions
from vision.runtimes.runtime import VisionRuntime

# name -> (module, class); imported only when chosen, since each brings its own packages.
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
    """The runtime that the options name, loaded and warm.

    Raises ValueError that says what to install, build or set where it cannot run.
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
