# SPDX-License-Identifier: Apache-2.0
"""Run the tower as an ONNX file (see scripts/engine_build/export_vit.py) with onnxruntime, on the CPU or one GPU."""

from collections.abc import Sequence

import onnxruntime as ort
import torch

from vision.options import VitOptions
from vision.runtimes.device import find_engine_file

ADVICE = "write it with `triton-chat build vit FOLDER`, or set TRITON_CHAT_VIT_ENGINE"
INPUT, OUTPUT = "tiles", "embeddings"


class OnnxRuntime:
    """A `VisionRuntime` on onnxruntime. Its output has the dtype of the ONNX file."""

    def __init__(self, options: VitOptions) -> None:
        path = find_engine_file(options, "model.onnx", ADVICE)
        session_options = ort.SessionOptions()
        if options.threads is not None:
            session_options.intra_op_num_threads = options.threads
        providers = find_providers(options.device, ort.get_available_providers())
        try:
            self._session = ort.InferenceSession(path, session_options, providers=providers)
        except Exception as error:
            # onnxruntime has an exception class of its own for each of its status codes, without a common base.
            raise ValueError(f"vit: onnxruntime cannot load '{path}': {error}") from error
        names = [value.name for value in (*self._session.get_inputs(), *self._session.get_outputs())]
        if names != [INPUT, OUTPUT]:
            raise ValueError(f"vit: '{path}' has the tensors {names}, not {[INPUT, OUTPUT]}: {ADVICE}")
        self.max_tiles = options.tile_budget

    def run(self, tiles: torch.Tensor) -> torch.Tensor:
        """See `VisionRuntime.run`."""
        (embeddings,) = self._session.run([OUTPUT], {INPUT: tiles.numpy()})
        return torch.from_numpy(embeddings)


def find_providers(device: str, available: Sequence[str]) -> list[str | tuple[str, dict[str, int]]]:
    """List onnxruntime's providers for auto, cpu, cuda or cuda:N. Raises ValueError if its build lacks one."""
    kind, _, index = device.partition(":")
    has_cuda = "CUDAExecutionProvider" in available
    if kind == "cpu" or (kind == "auto" and not has_cuda):
        return ["CPUExecutionProvider"]
    if not has_cuda:
        raise ValueError(
            f"vit: this onnxruntime has no CUDAExecutionProvider for device '{device}' (only {', '.join(available)}): "
            "install onnxruntime-gpu, or set TRITON_CHAT_VIT_DEVICE=cpu"
        )
    return [("CUDAExecutionProvider", {"device_id": int(index or 0)}), "CPUExecutionProvider"]
