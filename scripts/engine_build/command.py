# SPDX-License-Identifier: Apache-2.0
"""`triton-chat build engine`: check, print the plan, build, write the manifest."""

import argparse
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import asdict

from rich.console import Console
from rich.markup import escape

from frontend import __version__
from scripts.engine_build import checks
from scripts.engine_build.plan import Request, Step, make_steps, parameters
from scripts.engine_build.presets import DEFAULT_PRESET, PRESETS, SIZES
from scripts.engine_build.run import is_done, run_step, working
from scripts.engine_build.source import Source
from scripts.shared.errors import EngineError
from scripts.shared.findings import Finding, rendered
from scripts.shared.manifest import Manifest, checkpoint_hash
from scripts.shared.toolchain import Toolchain

# Interval of progress lines if there is no terminal.
_QUIET_S = 60.0
_PRESET_OF = {"qwen3": "qwen3", "gemma3_text": "gemma3"}


def build_engine(options: argparse.Namespace, console: Console) -> int:
    """Build an engine, or only print the commands of a dry run; returns the exit status. Raises EngineError."""
    request, tools = make_request(options), Toolchain.find(options.examples)
    steps = make_steps(request, tools)
    found = [checks.softened(each) if options.dry_run else each for each in checks.machine(request, tools)]
    found = [*checks.inputs(request), *found]
    _print_findings(console, found)
    if options.dry_run:
        print("\n".join(shlex.join(step.command) for step in steps))
        return int(_stopped(found))
    if _stopped(found):
        raise EngineError("nothing was built, for the errors above.")
    if request.output.exists() and not options.force:
        raise EngineError(f"'{request.output}' exists: --force replaces it.")
    with working(request.work):
        _build(request, tools, steps, console)
        _put_in_place(request, options.keep_checkpoint)
    print(request.output)
    return 0


def make_request(options: argparse.Namespace) -> Request:
    """Turn the options into a request: a preset, by name or by the model's family, with the sizes that are given."""
    source = Source.open(options.folder.absolute())
    default = "internvl2_5" if source.tile_tokens else _PRESET_OF.get(source.model_type, DEFAULT_PRESET)
    preset = PRESETS[options.preset or default].changed(**{size: getattr(options, size) for size in SIZES})
    return Request(
        source, options.output.absolute(), preset, options.qformat, options.awq_block_size, options.calib_dataset
    )


def _build(request: Request, tools: Toolchain, steps: Sequence[Step], console: Console) -> None:
    hashed = checkpoint_hash(request.source.folder)
    key = f"{hashed} {sorted(tools.versions.items())} {tools.gpus[0].capability}"
    for step in steps:
        if is_done(step, request.work, key):
            console.print(f"{step.name}: done before", soft_wrap=True)
            continue
        console.print(f"{step.name}: {escape(shlex.join(step.command))}", soft_wrap=True)
        with _StepDisplay(console) as display:
            run_step(step, request.work, key, display.progress)
        # The input of the next step depends on this one.
        key = f"{key} {shlex.join(step.command)}"
    _manifest(request, tools, steps, hashed).write(steps[-1].writes)


def _manifest(request: Request, tools: Toolchain, steps: Sequence[Step], hashed: str) -> Manifest:
    engine, gpu = steps[-1], tools.gpus[0]
    return Manifest(
        checkpoint=str(request.source.folder),
        checkpoint_hash=hashed,
        qformat=request.source.quantised or request.qformat,
        world_size=request.world_size,
        versions=tools.versions,
        gpu=gpu.name,
        compute=gpu.capability,
        sizes={**asdict(request.preset), "max_multimodal_len": request.max_multimodal_len},
        parameters=parameters(request),
        commands=[list(step.command) for step in steps],
        files={name: (engine.writes / name).stat().st_size for name in engine.files},
        made_by=f"triton-chat {__version__}",
    )


def _put_in_place(request: Request, keep_checkpoint: bool) -> None:
    shutil.rmtree(request.output, ignore_errors=True)
    request.output.parent.mkdir(parents=True, exist_ok=True)
    (request.work / "engine").rename(request.output)
    if not keep_checkpoint:
        shutil.rmtree(request.work)


def _print_findings(console: Console, found: Sequence[Finding]) -> None:
    for each in found:
        console.print(rendered(each), soft_wrap=True)


def _stopped(found: Sequence[Finding]) -> bool:
    return any(each.verdict == "error" for each in found)


class _StepDisplay:
    """Shows the progress of a step: a live line on a terminal, otherwise one line a minute."""

    def __init__(self, console: Console) -> None:
        self._console, self._printed_s = console, 0.0
        self._status = console.status("") if console.is_terminal else None

    def __enter__(self) -> "_StepDisplay":
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._status:
            self._status.stop()

    def progress(self, name: str, elapsed_s: float, line: str) -> None:
        """See `run.Progress`."""
        text = f"{name} {elapsed_s:5.0f} s  {escape(line[-100:])}"
        if self._status:
            self._status.update(text)
        elif elapsed_s - self._printed_s >= _QUIET_S:
            self._printed_s = elapsed_s
            self._console.print(text, soft_wrap=True)
