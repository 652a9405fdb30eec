# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of several models: each one, and whether they fit together."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from rich.console import Console

from common.vision_path import is_unsplit, vision_path
from scripts.cli.model_files import model_findings
from scripts.launcher.checks import GIB
from scripts.launcher.errors import LaunchError
from scripts.launcher.models_file import ModelSpec, read_models
from scripts.launcher.options import LaunchOptions
from scripts.launcher.planner import Planner
from scripts.launcher.trtllm_config import engine_name
from scripts.shared.findings import Finding


def several_findings(options: LaunchOptions, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Check the models of a command line; the subject of a finding names its model."""
    try:
        specs = read_models(options, engine_name(options, environment))
    except LaunchError as error:
        yield Finding("models", "error", str(error))
        return
    fine = True
    for spec in specs:
        for finding in model_findings(spec.options, {**environment, **spec.environment}):
            fine = fine and finding.verdict != "error"
            yield Finding(f"{spec.name}: {finding.subject}", finding.verdict, finding.text)
    # Planning would download and convert the others.
    if fine and all(map(_is_whole, specs)):
        yield _together(specs, {**environment, **options.settings})


def _is_whole(spec: ModelSpec) -> bool:
    """Whether the model is a folder that is served as it is."""
    folder = Path(spec.options.model).expanduser()
    vision = spec.options.settings.get("TRITON_CHAT_VISION")
    try:
        return folder.is_dir() and not is_unsplit(folder, vision_path(folder, vision))
    except ValueError:
        return False


def _together(specs: list[ModelSpec], environment: Mapping[str, str]) -> Finding:
    try:
        planned = Planner(environment, environment, None, Console(quiet=True)).plan(specs)
    except LaunchError as error:
        return Finding("together", "error", str(error))
    memory = sum(one.memory for one in planned)
    needs = f"{memory / GIB:.1f} GiB of weights and KV cache" if memory else "each has room on its GPUs"
    return Finding("together", "ok", f"{len(planned)} models: {needs}")
