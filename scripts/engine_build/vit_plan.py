# SPDX-License-Identifier: Apache-2.0
"""Build a TensorRT plan of the vision tower from vision/model.onnx.

The builder is `tensorrt` or `tensorrt_rtx`. The latter has the same interface and builds without a GPU, so the tests
use it; its plans only run with `tensorrt_rtx`.

    python -m scripts.engine_build.vit_plan vision/model.onnx vision/model.plan --package tensorrt_rtx --compute 8.9

This module imports no package but the builder, so that it runs in an environment that has only the builder.
"""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INPUT, OUTPUT = "tiles", "embeddings"
PLAN = "model.plan"
# Called with a phase of the builder, the steps that are done, and all its steps.
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class TileCounts:
    """Tiles of one run: the least and the most that the plan accepts, and the count that it is optimised for."""

    min: int = 1
    opt: int = 13
    max: int = 26

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.opt <= self.max:
            raise ValueError(f"tile counts must be 1 <= min <= opt <= max, not {self.min}, {self.opt}, {self.max}")


def build_plan(
    trt: Any, onnx: Path, plan: Path, counts: TileCounts, compute: str = "", progress: Progress | None = None
) -> None:
    """Build a plan with the number types of the graph, and write it at once.

    trt: the module `tensorrt` or `tensorrt_rtx`. compute: the capability to build for, such as "8.9", only for
    `tensorrt_rtx`; empty for this machine's GPU.
    Raises ValueError with TensorRT's messages if it rejects the graph or cannot build it.
    """
    messages: list[str] = []
    builder = trt.Builder(_logger(trt, messages))
    if builder is None:
        raise ValueError(_failed("cannot start", messages))
    # Strongly typed: the graph's types are used; the other mode is deprecated, and tensorrt_rtx lacks it.
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, builder.logger)
    if not parser.parse_from_file(str(onnx)):
        raise ValueError(
            _failed(f"does not take '{onnx}'", [parser.get_error(at).desc() for at in range(parser.num_errors)])
        )
    config = builder.create_builder_config()
    config.add_optimization_profile(_profile(builder, network, counts))
    if compute:
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{compute.replace('.', '')}"), 0)
    if progress:
        config.progress_monitor = _monitor(trt, progress)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise ValueError(_failed(f"built nothing from '{onnx}'", messages))
    unfinished = plan.with_name(f".{plan.name}.new")
    unfinished.write_bytes(memoryview(serialized))
    unfinished.replace(plan)


def _profile(builder: Any, network: Any, counts: TileCounts) -> Any:
    names = [network.get_input(at).name for at in range(network.num_inputs)]
    if names != [INPUT] or [network.get_output(at).name for at in range(network.num_outputs)] != [OUTPUT]:
        raise ValueError(f"the graph takes {names} and must take '{INPUT}' and give '{OUTPUT}': export it again")
    _, *tile = tuple(network.get_input(0).shape)
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, *((count, *tile) for count in (counts.min, counts.opt, counts.max)))
    return profile


def _logger(trt: Any, messages: list[str]) -> Any:
    """A logger that appends errors to `messages`, as TensorRT's return values do not have them."""

    class Logger(trt.ILogger):  # type: ignore[misc] # tensorrt has no types
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
                messages.append(message)

    return Logger()


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc] # tensorrt has no types
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = steps

        def phase_finish(self, phase: str) -> None:
            self._steps.pop(phase, None)

        def step_complete(self, phase: str, step: int) -> bool:
            progress(phase, step + 1, self._steps.get(phase, 0))
            return True

    return Monitor()


def _failed(what: str, messages: Sequence[str]) -> str:
    return f"TensorRT {what}: {'; '.join(messages) or 'no reason given'}"


def _show(phase: str, done: int, steps: int) -> None:
    """Print each phase when its first step is done, as a large tower takes minutes."""
    if done == 1:
        print(f"{phase}: {steps} steps", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Build one plan; returns 1 with the reason on the terminal if it cannot be built."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.engine_build.vit_plan", description="Build the tower's plan."
    )
    parser.add_argument("onnx", type=Path)
    parser.add_argument("plan", type=Path)
    parser.add_argument("--package", default="tensorrt", choices=("tensorrt", "tensorrt_rtx"))
    parser.add_argument("--compute", default="", help="compute capability, for tensorrt_rtx")
    for name in ("min", "opt", "max"):
        parser.add_argument(f"--{name}-tiles", type=int, default=getattr(TileCounts(), name))
    options = parser.parse_args(arguments)
    try:
        counts = TileCounts(options.min_tiles, options.opt_tiles, options.max_tiles)
        package = importlib.import_module(options.package)
        build_plan(package, options.onnx, options.plan, counts, options.compute, _show)
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
