# SPDX-License-Identifier: Apache-2.0
"""The Dockerfiles: hadolint, paths that exist, options that are read; the lists of packages suffice; the release."""

import ast
import fnmatch
import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from frontend import __version__, healthcheck
from scripts.setup import check_packages
from tests.support.containers import DOCKER, PORT, ROOT, VARIABLES, check_flags, run_tool
from tests.support.packages import PACKAGES

FILES = sorted(DOCKER.glob("Dockerfile.*"))
# tritonserver's, PyTorch's, Triton's (the language) and Hugging Face's own.
FOREIGN = {"HOME", "USER", "PATH", "XDG_CACHE_HOME", "HF_HOME", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"}


def instructions(file: Path) -> list[tuple[str, str]]:
    """(instruction, arguments) of a Dockerfile, continued lines joined."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in joined.splitlines() if line.strip()]


def test_there_is_an_image_for_each_engine_and_the_frontend() -> None:
    assert [file.suffix for file in FILES] == [".cpu", ".frontend", ".trtllm", ".vllm"]
    bases = {file.suffix: [text for word, text in instructions(file) if word == "FROM"][-1] for file in FILES}
    for engine in ("vllm", "trtllm"):
        image = "nvcr.io/nvidia/tritonserver:${TRITON}-" + f"{engine}-python-py3"
        assert bases[f".{engine}"] == "${TRITON_IMAGE}"
        lines = instructions(DOCKER / f"Dockerfile.{engine}")
        assert ("ARG", "TRITON=26.07") in lines and ("ARG", f"TRITON_IMAGE={image}") in lines


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_can_be_built_on_a_network_of_its_own(file: Path) -> None:
    """Images and the package index are arguments, and whatever asks the index can have a secret pip.conf."""
    lines = instructions(file)
    # A `# syntax=` line would fetch the builder itself from Docker Hub.
    assert "syntax=" not in file.read_text(encoding="utf-8")
    for word, text in lines:
        if word == "FROM":
            assert re.fullmatch(r"\$\{(PYTHON|TRITON)_IMAGE\}( AS \w+)?", text)
        if word == "RUN" and re.search(r"pip (install|wheel)|fetch_tritonserver|prepare", text):
            assert "--mount=type=secret,id=pip,target=/etc/pip.conf" in text or "--no-index" in text, text
    stages = "\n".join(f"{word} {text}" for word, text in lines).split("FROM ")[1:]
    for stage in stages:
        if "type=secret" in stage:
            assert "ARG PIP_INDEX_URL" in stage and "ARG PIP_EXTRA_INDEX_URL" in stage and "PIP_NO_CACHE_DIR=1" in stage


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_dependencies_are_installed_before_the_sources_are_copied(file: Path) -> None:
    for stage in file.read_text(encoding="utf-8").split("\nFROM ")[1:]:
        if "-r requirements/" in stage:
            installed = stage.index("-r requirements/")
            assert not re.search(r"^COPY (\.|common|frontend|model_repository) ", stage[:installed], re.MULTILINE)
    last = file.read_text(encoding="utf-8").rpartition("\nFROM ")[2]
    assert "COPY . ." not in last, "the sources are in the image twice"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_its_labels(file: Path) -> None:
    labels = next(text for word, text in instructions(file) if word == "LABEL")
    named = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", labels))
    assert named == {"title", "description", "licenses", "version", "revision", "source"}
    assert ("ARG", f"VERSION={__version__}") in instructions(file)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_hadolint(file: Path) -> None:
    done = run_tool("hadolint", "--no-color", file)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_what_is_copied_is_there_and_sent_to_the_builder(file: Path) -> None:
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = [line[1:] for line in sent if line.startswith("!")]
    assert "*" in sent and all((ROOT / path).exists() for path in kept)
    for word, text in instructions(file):
        if word == "COPY" and "--from" not in text:
            for source in [part for part in text.split()[:-1] if not part.startswith("--")]:
                assert (ROOT / source).exists(), source
                assert source == "." or any(source == path or source.startswith(f"{path}/") for path in kept), source


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_runs_as_a_user_asks_for_its_health_and_takes_real_options(file: Path) -> None:
    lines = instructions(file)
    words = [word for word, _ in lines]
    assert ("USER", "1000:1000") in lines and words.index("USER") < words.index("ENTRYPOINT")
    assert ("EXPOSE", str(PORT)) in lines
    health = next(text for word, text in lines if word == "HEALTHCHECK")
    assert json.loads(re.search(r"CMD (\[.*\])", health)[1]) == ["python3", "-P", "-m", healthcheck.__name__]
    for word, text in lines:
        if word == "ENV":
            assert {pair.split("=")[0] for pair in text.split()} - {
                "PYTHONDONTWRITEBYTECODE",
                "PYTHONPATH",
            } <= FOREIGN | VARIABLES | {name for name in re.findall(r"PIP_\w+", text)}
        if word == "CMD":
            check_flags([part for part in json.loads(text) if part.startswith("--")])


def pins(name: str) -> dict[str, str]:
    text = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    return {canonicalize_name(one): number for one, number in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("name", ["frontend", "images"])
def test_images_have_the_versions_that_the_tests_run(name: str) -> None:
    assert pins(name).items() <= pins("serve").items()


IMPORTER = """
import importlib, importlib.metadata, pkgutil, sys
listed = set(sys.argv[1].split(","))
owners = importlib.metadata.packages_distributions()
own = set(sys.argv[3].split(","))


class Guard:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if path is None and top in owners and top not in own:
            if not {one.lower().replace("_", "-").replace(".", "-") for one in owners[top]} & listed:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


sys.meta_path.insert(0, Guard())
for root in sys.argv[2].split(","):
    package = importlib.import_module(root)
    for module in pkgutil.walk_packages(getattr(package, "__path__", ()), root + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


def imported(listed: set[str], modules: str) -> "subprocess.CompletedProcess[str]":
    """Import all modules of packages in a Python in which only the listed distributions can be found."""
    command = [sys.executable, "-c", IMPORTER, ",".join(sorted(listed)), modules, ",".join(PACKAGES)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_the_frontends_list_suffices() -> None:
    done = imported(set(pins("frontend")), "frontend")
    assert done.returncode == 0, done.stderr[-2000:]
    assert "No module named" in imported(set(pins("frontend")) - {"orjson"}, "frontend").stderr


# What both engines require by themselves: vLLM 0.30 and TensorRT-LLM 1.2 name each of these.
ENGINES_OWN = (
    "numpy",
    "openai",
    "pillow",
    "protobuf",
    "psutil",
    "pydantic",
    "pyyaml",
    "requests",
    "sentencepiece",
    "torch",
    "transformers",
)


def required(roots: tuple[str, ...]) -> set[str]:
    """The distributions and all that they require, as installed here."""
    found: set[str] = set()
    left = [canonicalize_name(root) for root in roots]
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            asked = [Requirement(line) for line in requires(name) or ()]
            left += [
                canonicalize_name(one.name) for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})
            ]
    return found


def imports(*folders: str) -> set[frozenset[str]]:
    """What modules in these folders import anywhere, each as the distributions that have it."""
    owners, found = packages_distributions(), set()
    for file in [file for folder in folders for file in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            found |= {frozenset(map(canonicalize_name, owners.get(name.partition(".")[0], ()))) for name in names}
    return {one for one in found if one and "triton-chat" not in one}


def test_beside_an_engine_the_list_suffices() -> None:
    engines = required(ENGINES_OWN)
    assert set(pins("frontend")) - set(pins("images")) <= engines
    models = [f"model_repository/{name}/1" for name in ("preprocessing", "postprocessing")]
    libraries = ("common", "families", "postprocessing", "preprocessing", "python_backend")
    needed = imports("frontend", *libraries, "scripts/launcher", *models)
    assert {frozenset({name}) for name in ("fastapi", "av", "rich", "transformers")} <= needed
    assert not [owners for owners in needed if not owners & (set(pins("images")) | engines)]


def test_an_image_that_is_too_old_ends_the_build() -> None:
    assert check_packages.declared_problems() == []
    old = {"transformers": "4.56.2", "fastapi": "0.110"}
    assert check_packages.declared_problems(lambda name: old.get(name) or version(name)) == [
        "fastapi 0.110 is installed, but this project needs fastapi>=0.136.",
        "transformers 4.56.2 is installed, but this project needs transformers>=4.57.",
    ]

    def without(name: str) -> str:
        if name == "orjson":
            raise PackageNotFoundError(name)
        return version(name)

    assert check_packages.declared_problems(without) == ["orjson>=3.10 is missing."]


def test_the_pages_of_the_watching_are_loaded() -> None:
    for file in DOCKER.rglob("*.y*ml"):
        if "helm" not in file.parts:
            assert yaml.safe_load(file.read_text(encoding="utf-8")), file
    compose = yaml.safe_load((DOCKER / "prometheus" / "compose.yml").read_text(encoding="utf-8"))
    plain = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = [{job["job_name"] for job in config["scrape_configs"]} for config in (compose, plain)]
    assert jobs[0] == jobs[1] | {"balancer"}  # The alerts know jobs by their names.
    alerts = (DOCKER / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    assert all(fnmatch.fnmatch(job, re.search(r'job=~"([^"]+)"', alerts)[1].replace(".*", "*")) for job in jobs[1])


def test_the_release_builds_every_image_and_pins_its_actions() -> None:
    text = (ROOT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    used = re.findall(r"uses: (\S+)", text)
    assert used and all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+\.\d+\.\d+", action) for action in used)
    images = json.loads(
        re.search(r"fromJSON\('(\[.*?\])'\)", workflow["jobs"]["images"]["strategy"]["matrix"]["image"])[1]
    )
    assert sorted(images) == [file.suffix[1:] for file in FILES]
    build = next(step["with"] for step in workflow["jobs"]["images"]["steps"] if "build-push" in step.get("uses", ""))
    arguments = {line.partition("=")[0] for line in build["build-args"].split("\n") if line}
    for file in FILES:
        assert arguments <= {text.partition("=")[0] for word, text in instructions(file) if word == "ARG"}
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            if "run" in step:
                subprocess.run(["bash", "-n"], input=step["run"], text=True, check=True)
