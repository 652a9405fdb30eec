# SPDX-License-Identifier: Apache-2.0
"""Stacks that several test files share: the default model, the demo vision model, scripted answers.

With pytest's option --double the default model and the scripts are played by the double of TensorRT-LLM's C++ backend.

Tests run by groups: those of one shared stack, which ends with its last test, or else those of one file. Several
processes (`-n 2 --dist loadgroup --no-loadscope-reorder`) take one group after the other, so each has the stacks of one
group in memory.
"""

import os
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, OpenAI

from scripts.launcher import FREE_PORTS, Stack
from scripts.prepare.smollm2 import prepare_default_model
from tests.support.demo_stack import DemoStack, demo_stack
from tests.support.gpu import memory_share
from tests.support.plain_adapter import write_adapter
from tests.support.scripted import ALL_DOUBLES, ScriptedPair, ScriptedStack, scripted_pair, scripted_stack
from tests.support.waiting import MODEL, PATIENCE_S

ADMIN_KEY = "the-admin-key"  # of the stack with two models
# What the double says in the place of the default model.
CAPITALS = {"France": "Paris", "Italy": "Rome", "Japan": "Tokyo", "Egypt": "Cairo"}
SMOLLM2_SAYS: list[dict[str, Any]] = [
    {"contains": "The capital of France is Paris", "text": "."},
    {"contains": "The capital of France is", "text": " Paris. It is a large city."},
    *(
        {"contains": f"capital of {country}", "text": f"The capital of {country} is {city}.", "delay_s": 0.01}
        for country, city in CAPITALS.items()
    ),
    {"contains": "long story", "text": "and then ", "repeat": True, "delay_s": 0.02},
    {"contains": "Count from one", "text": " ".join(["one two three four five six seven"] * 20), "delay_s": 0.01},
    {"text": "well, ", "repeat": True, "delay_s": 0.01},
]

_LOG_LINES = 60

HERE = Path(__file__).parent
# Fixtures of shared stacks, and the shared stack of a documented line or block by its model.
SHARED = ("double_qwen3", "demo", "scripted_qwen3", "scripted_models", "stack")
MODELS = {"demo-vlm": "demo", "qwen3": "scripted_qwen3", MODEL: "stack", None: "stack"}
# Groups that take minutes begin first, so that several processes end at about the same time. Those that stop and kill
# processes run beside the many small tests of the default stack, not beside starts of engines, which take all cores.
FIRST = (
    "stack",
    "test_faults",
    "test_model_lifecycle",
    "test_overload",
    "scripted_qwen3",
    "qwen2",
    "test_engine",
    "demo",
)


def pytest_configure(config: pytest.Config) -> None:
    """Give each of several processes one core to compute on: on the same cores threads would wait for each other."""
    config.pluginmanager.register(_shared_stacks)
    process = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    cores = sorted(os.sched_getaffinity(0))
    if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", str(cores[int(process) % len(cores)]))
        os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the ends of the logs of a failed test's stacks."""
    report = yield
    if report.failed:
        found = {id(stack): stack for value in getattr(item, "funcargs", {}).values() if (stack := _stack_of(value))}
        for stack in found.values():
            for log in sorted(stack.options.log_dir.glob("*.log")):
                lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
                report.sections.append((f"{log.name}, its last lines", "\n".join(lines)))
    return report


def _stack_of(value: Any) -> Stack | None:
    """The stack that a fixture is or has."""
    value = value if isinstance(value, Stack) else getattr(value, "stack", None)
    return value if isinstance(value, Stack) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Name the group of each test that has none, and put the tests of a group together."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(_find_group(item)))
    order = {group: number for number, group in enumerate(dict.fromkeys([*FIRST, *map(_group, items)]))}
    items.sort(key=lambda item: order[_group(item)])
    if getattr(config.option, "loadgroup", False):
        for item in items:
            _show_group(item)


def _show_group(item: pytest.Item) -> None:
    """Add the group to a test's id, where pytest-xdist looks for it.

    pytest-xdist 3.8 does that in a way that has no effect in pytest 9.2, and would send each test to any process.
    """
    suffix = f"@{_group(item)}"
    item._id = type(item.id).parse(item.nodeid + suffix)
    assert item.nodeid.endswith(suffix)


class _SharedStacks:
    """Knows the shared stacks that run. A plugin, as pytest does not call a folder's hook for fixtures of a whole session."""

    def __init__(self) -> None:
        self._running: list[Callable[[], None]] = []

    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
        # Some files have a stack of their own under such a name.
        if fixturedef.argname in SHARED and fixturedef.scope == "session":
            self._running.append(partial(fixturedef.finish, request))

    def end(self) -> None:
        while self._running:
            self._running.pop()()


_shared_stacks = _SharedStacks()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """End the shared stacks after the last test of their group."""
    try:
        yield
    finally:
        if nextitem is None or _group(nextitem) != _group(item):
            _shared_stacks.end()


def _group(item: pytest.Item) -> str:
    marker = item.get_closest_marker("xdist_group")
    assert marker is not None
    return str(marker.args[0])


def _find_group(item: pytest.Item) -> str:
    if not item.path.is_relative_to(HERE):  # other folders may be collected in the same run
        return item.path.stem
    parameters = item.callspec.params if hasattr(item, "callspec") else {}
    documented = parameters.get("line") or parameters.get("block")
    if documented is not None and "tmp_path" in getattr(item, "fixturenames", ()):
        return MODELS[documented.model]
    used = [name for name in SHARED if name in getattr(item, "fixturenames", ())]
    return used[0] if used else item.path.stem


@pytest.fixture(scope="session")
def smollm2_dir() -> Path:
    """The prepared default checkpoint."""
    return prepare_default_model()


@pytest.fixture(scope="session")
def stack(smollm2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The default stack, on free ports."""
    names = ["--served-model-name", MODEL, "qwen2"]
    if os.environ.get(ALL_DOUBLES):
        folder = tmp_path_factory.mktemp("double")
        with scripted_stack(MODEL, smollm2_dir, folder, names[1:]) as scripted:
            scripted.play(*SMOLLM2_SAYS)
            yield scripted.stack
        return
    logs = tmp_path_factory.mktemp("logs")
    flags = ["--log-dir", str(logs), *memory_share(0.45), *FREE_PORTS]
    with Stack([str(smollm2_dir), *names, *flags]) as running:
        yield running
    # A clean stop is checked on the scripted stacks: here raw Triton clients meet Triton's own leak (reply.py).


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoStack]:
    """The demo vision model, and pictures that its server may read."""
    with demo_stack(tmp_path_factory.mktemp("demo")) as running:
        yield running


@pytest.fixture(scope="session")
def scripted_qwen3(tmp_path_factory: pytest.TempPathFactory, qwen3_tokenizer_dir: Path) -> Iterator[ScriptedStack]:
    """A scripted stack with Qwen3's tokenizer; each test plays its own script."""
    names = ("qwen3", "qwen3-other-name")
    with scripted_stack("qwen3", qwen3_tokenizer_dir, tmp_path_factory.mktemp("qwen3"), names) as running:
        yield running


@pytest.fixture(scope="session")
def scripted_models(tmp_path_factory: pytest.TempPathFactory, qwen3_tokenizer_dir: Path) -> Iterator[ScriptedPair]:
    """A stack with the two scripted models PAIR, two frontends, and ADMIN_KEY as the key of both APIs that load models."""
    folder, more = tmp_path_factory.mktemp("pair"), ["--frontends", "2"]
    with scripted_pair(
        qwen3_tokenizer_dir, folder, more=more, TRITON_CHAT_ADMIN_KEY=ADMIN_KEY, TRITON_CHAT_REPOSITORY_KEY=ADMIN_KEY
    ) as running:
        yield running


@pytest.fixture(scope="session")
def double_qwen3(tmp_path_factory: pytest.TempPathFactory, qwen3_tokenizer_dir: Path) -> Iterator[ScriptedStack]:
    """The same with the double of TensorRT-LLM's C++ backend, and with the LoRA adapters `sql` and `poet`."""
    folder = tmp_path_factory.mktemp("adapters")
    paths = {name: write_adapter(folder / name, fill=fill) for name, fill in (("sql", 1.0), ("poet", 2.0))}
    more = ["--enable-lora", "--lora-modules", *(f"{name}={path}" for name, path in paths.items())]
    place = tmp_path_factory.mktemp("double")
    with scripted_stack("qwen3", qwen3_tokenizer_dir, place, double=True, more=more) as running:
        yield running


@pytest.fixture(scope="session")
def client(stack: Stack) -> OpenAI:
    """The official client, synchronous."""
    return OpenAI(base_url=f"{stack.url}/v1", api_key="unused", timeout=PATIENCE_S, max_retries=0)


@pytest.fixture
def async_client(stack: Stack) -> AsyncOpenAI:
    """The official client, asynchronous; one per test, since each test has its own event loop."""
    return AsyncOpenAI(base_url=f"{stack.url}/v1", api_key="unused", timeout=PATIENCE_S, max_retries=0)


@pytest.fixture(scope="session")
def http(stack: Stack) -> Iterator[httpx.Client]:
    """An HTTP client for the frontend."""
    with httpx.Client(base_url=stack.url, timeout=PATIENCE_S) as plain:
        yield plain
