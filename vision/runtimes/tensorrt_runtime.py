# SPDX-License-Identifier: Apache-2.0
"""Run the tower as a TensorRT engine (see scripts/engine_build/vit_plan.py), with torch tensors as device memory."""

from pathlib import Path
from typing import Any

import tensorrt as trt
import torch

from vision.options import VitOptions
from vision.runtimes.device import find_device, find_engine_file, limit_threads

ADVICE = "build it with `triton-chat build vit FOLDER --plan`, or set TRITON_CHAT_VIT_ENGINE"
INPUT, OUTPUT = "tiles", "embeddings"
INPUT_DTYPE = trt.DataType.UINT8
OUTPUT_DTYPES = {
    trt.DataType.FLOAT: torch.float32,
    trt.DataType.HALF: torch.float16,
    trt.DataType.BF16: torch.bfloat16,
}
PROFILE = 0


class TensorRtRuntime:
    """A `VisionRuntime` on TensorRT. `max_tiles` is the largest tile count of the engine's first profile."""

    def __init__(self, options: VitOptions) -> None:
        path = find_engine_file(options, "model.plan", ADVICE)
        self._device = find_device(options)
        if self._device.type != "cuda":
            raise ValueError("vit: runtime 'tensorrt' needs a GPU, and torch sees none: install a CUDA build of torch")
        limit_threads(options, self._device)
        with torch.cuda.device(self._device):
            # The runtime must outlive its engine.
            self._trt_runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
            self._engine = _deserialize(self._trt_runtime, path)
            self._context = self._engine.create_execution_context()
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch does not annotate it
        if self._context is None:
            raise ValueError(f"vit: TensorRT has too little GPU memory to run '{path}'")
        smallest, _, largest = self._engine.get_tensor_profile_shape(INPUT, PROFILE)
        self._min_tiles, self.max_tiles = smallest[0], largest[0]
        self._dtype = OUTPUT_DTYPES[self._engine.get_tensor_dtype(OUTPUT)]

    @torch.inference_mode()
    def run(self, tiles: torch.Tensor) -> torch.Tensor:
        """See `VisionRuntime.run`. Returns bfloat16."""
        count = len(tiles)
        with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
            rows = self._enqueue(self._on_device(tiles))[:count].to(torch.bfloat16)
            host = torch.empty(rows.shape, dtype=rows.dtype, pin_memory=True)
            host.copy_(rows, non_blocking=True)
            self._stream.synchronize()
        return host

    def _on_device(self, tiles: torch.Tensor) -> torch.Tensor:
        """Copy the tiles to the GPU, padded to the profile's smallest tile count."""
        shape = (max(len(tiles), self._min_tiles), *tiles.shape[1:])
        filled = torch.zeros(shape, dtype=torch.uint8, device=self._device)
        filled[: len(tiles)].copy_(tiles.pin_memory(), non_blocking=True)
        return filled

    def _enqueue(self, tiles: torch.Tensor) -> torch.Tensor:
        """Start the engine on this runtime's stream. The result is valid when the stream has reached this point."""
        context = self._context
        if not context.set_input_shape(INPUT, tuple(tiles.shape)):
            raise RuntimeError(f"the TensorRT engine does not take tiles of shape {list(tiles.shape)}")
        rows = torch.empty(tuple(context.get_tensor_shape(OUTPUT)), dtype=self._dtype, device=self._device)
        context.set_tensor_address(INPUT, tiles.data_ptr())
        context.set_tensor_address(OUTPUT, rows.data_ptr())
        if not context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError("the TensorRT engine could not be started; tritonserver's log says why")
        return rows


def _deserialize(runtime: Any, path: Path) -> Any:
    """Load a plan file. Raises ValueError if it is not for this GPU or TensorRT release, or has other tensors."""
    engine = runtime.deserialize_cuda_engine(path.read_bytes())
    if engine is None:
        raise ValueError(
            f"vit: TensorRT {trt.__version__} cannot load '{path}'; a plan is for one TensorRT release and kind of "
            f"GPU: {ADVICE}"
        )
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    if sorted(names) != sorted((INPUT, OUTPUT)):
        raise ValueError(f"vit: '{path}' has the tensors {names}, not {[INPUT, OUTPUT]}: {ADVICE}")
    if engine.get_tensor_dtype(INPUT) != INPUT_DTYPE or engine.get_tensor_dtype(OUTPUT) not in OUTPUT_DTYPES:
        raise ValueError(f"vit: '{path}' must take uint8 and give float32, float16 or bfloat16: {ADVICE}")
    return engine
