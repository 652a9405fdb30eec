# SPDX-License-Identifier: Apache-2.0
"""Failing starts, with a fake tritonserver and a real frontend process."""

import io
import json
import os
import threading
import time
from pathlib import Path

import pytest
from rich.console import Console

from common.models_state import FAILED, LOADING, READY, ModelState
from scripts.launcher import FREE_PORTS, LaunchError, Stack, start_retries, stubs
from scripts.launcher.environment import triton_command
from tests.support.hostile_folder import make_hostile_folder
from tests.support.plain_adapter import write_adapter, write_base
from tests.support.waiting import PATIENCE_S

FAKE = Path(__file__).parents[3] / "fakes" / "fake_tritonserver.py"
CONFIG = {"model_type": "llama", "vocab_size": 10, "max_position_embeddings": 64, "eos_token_id": 1}


def make_stack(tmp_path: Path, behaviour: str, *more: str) -> tuple[Stack, io.StringIO]:
    model = tmp_path / "tiny"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    (model / "tokenizer.json").write_text("{}")
    write_base(tmp_path / "weights")
    (tmp_path / "weights" / "model.safetensors").rename(model / "model.safetensors")
    screen = io.StringIO()
    arguments = [str(model), "--triton", str(FAKE), "--log-dir", str(tmp_path / "logs"), *FREE_PORTS, *more]
    environment = os.environ | {"FAKE_TRITONSERVER": behaviour, "VLLM_CPU_KVCACHE_SPACE": "0"}
    return Stack(arguments, environment=environment, console=Console(file=screen)), screen


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("--chat-template", "/nowhere.jinja"), "--chat-template: chat template: cannot read '/nowhere.jinja'"),
        (("--chat-template", "{% if %}"), "--chat-template: .* is not valid Jinja: line 1: "),
        (
            ("--tool-call-parser", "hermit"),
            "--tool-call-parser: unknown tool-call parser 'hermit'; known: auto, .*hermes",
        ),
        (("--reasoning-parser", "hm"), "--reasoning-parser: unknown reasoning parser 'hm'; known: auto, .*qwen3"),
    ],
)
def test_a_wrong_template_or_parser_stops_the_start(tmp_path: Path, line: tuple[str, ...], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        make_stack(tmp_path, "refuse", *line)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--lora-modules a={}/a", "need --enable-lora"),
        ("--enable-lora --lora-modules a", r"expected NAME=PATH .* not a\."),
        ("--enable-lora --lora-modules tiny={}/a", "'tiny' is a name of the model itself"),
        ("--enable-lora --lora-modules a={}/none", "adapter 'a' cannot be served: there is no folder .*/none"),
        ("--enable-lora --lora-modules a={}/a", "rank 32, above the limit of 16"),
        ("--enable-lora --max-lora-rank 32 --lora-modules a={}/a", "made for another base"),
        ("--enable-lora --allowed-lora-path {}/none", "--allowed-lora-path: there is no folder"),
    ],
)
def test_an_adapter_that_cannot_be_served_stops_the_start(tmp_path: Path, line: str, message: str) -> None:
    write_adapter(tmp_path / "a", r=32, inputs=99)
    with pytest.raises(LaunchError, match=message):
        make_stack(tmp_path, "refuse", *line.format(tmp_path).split())


def test_adapters_reach_the_engine_with_their_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_adapter(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    stack, _ = make_stack(tmp_path, "refuse", "--enable-lora", "--lora-modules", "a=a", "--allowed-lora-path", ".")
    options = json.loads(stack.engine_environment["TRITON_CHAT_ENGINE_OPTIONS"])
    assert options["lora_modules"] == [{"name": "a", "path": f"{tmp_path}/a"}]
    assert options["allowed_lora_path"] == [str(tmp_path)]


def test_an_unknown_engine_option_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(
        LaunchError, match=r"unknown option --tensor-paralel-size; did you mean --tensor-parallel-size\?$"
    ):
        make_stack(tmp_path, "refuse", "--tensor-paralel-size", "2")


def test_an_unknown_option_of_another_engine_is_named(tmp_path: Path) -> None:
    stack, _ = make_stack(tmp_path, "refuse", "--engine", "mine:Engine", "--tensor-paralel-size", "2")
    with pytest.raises(LaunchError, match="The engine has no option 'tensor_paralel_size'") as failure, stack:
        pytest.fail("started")
    assert "unknown engine option" in failure.value.log[-1]
    assert stack.parts == ()


def test_a_killed_server_is_distinguished_from_one_that_failed(tmp_path: Path) -> None:
    stack, _ = make_stack(tmp_path, "be_killed")
    with pytest.raises(LaunchError, match=r"tritonserver was ended by SIGKILL.*out of memory"), stack:
        pytest.fail("started")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed start is tried again sooner."""
    monkeypatch.setattr(start_retries, "PAUSES_S", (0.1, 0.2, 0.3))


@pytest.mark.usefixtures("quick")
def test_a_server_that_crashes_is_started_again(tmp_path: Path) -> None:
    stack, screen = make_stack(tmp_path, "crash")
    with pytest.raises(LaunchError, match="tritonserver was ended by SIGABRT"), stack:
        pytest.fail("started")
    assert (tmp_path / "logs" / "tritonserver.log").read_text().count("crashing") == 4
    for number, pause in ((2, 0.1), (3, 0.2), (4, 0.3)):
        assert f"crashed while it loaded; starting it again in {pause} s (try {number} of 4)" in screen.getvalue()


@pytest.mark.usefixtures("quick")
def test_a_start_in_which_triton_gave_up_a_process_is_tried_again_at_once(tmp_path: Path) -> None:
    """Though tritonserver does not end: it has other models to load."""
    stack, screen = make_stack(tmp_path, "find_unhealthy")
    with pytest.raises(LaunchError, match="took a process of model tensorrt_llm for dead"), stack:
        pytest.fail("started")
    assert (tmp_path / "logs" / "tritonserver.log").read_text().count("is not healthy") == 4
    assert "starting it again in 0.3 s (try 4 of 4)" in screen.getvalue()


@pytest.mark.usefixtures("quick")
def test_a_model_that_ended_for_a_reason_is_not_tried_again(tmp_path: Path) -> None:
    stack, _ = make_stack(tmp_path, "run_out_of_memory")
    with pytest.raises(LaunchError) as failure, stack:
        pytest.fail("started")
    assert "too little memory" in str(failure.value)
    assert (tmp_path / "logs" / "tritonserver.log").read_text().count("is not healthy") == 1


@pytest.mark.usefixtures("quick")
def test_a_process_that_tritonserver_gave_up_is_killed_and_the_start_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_MODELS", str(tmp_path / "models"))
    monkeypatch.setattr(stubs, "_STUCK_PERIOD_S", 0.1)
    monkeypatch.setattr(stubs, "_STUCK_S", 0.5)
    stack, screen = make_stack(tmp_path, "give_up")
    # Its log may be read before its end is seen.
    with (
        pytest.raises(LaunchError, match=r"tritonserver (exited with status 1|took a process of model preprocessing)"),
        stack,
    ):
        pytest.fail("started")
    assert (tmp_path / "logs" / "tritonserver.log").read_text().count("giving up") == 4
    assert "took a process of model preprocessing for dead, which had stood still" in screen.getvalue()


def test_a_start_that_takes_too_long_names_what_is_missing_and_leaves_nothing(tmp_path: Path) -> None:
    stack, screen = make_stack(tmp_path, "load_forever", "--ready-timeout", "3")
    with pytest.raises(LaunchError, match="not ready after 3 s; still missing: tensorrt_llm"):
        stack.start()
    sessions = stack.parts
    assert [part.name for part in sessions] == ["tritonserver", "frontend-1"]
    stack.hurry.set()
    stack.stop()
    assert [part.session() for part in sessions] == [[], []]
    assert "preprocessing ready, engine (vLLM) loading" in screen.getvalue()


def test_logs_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    stack, _ = make_stack(tmp_path, "refuse")
    (tmp_path / "logs").write_text("a file in their place")
    with pytest.raises(LaunchError, match=r"their logs in .*/logs could not be started: .*File exists"), stack:
        pytest.fail("started")


def test_a_signal_ends_the_wait(tmp_path: Path) -> None:
    stack, _ = make_stack(tmp_path, "load_forever")
    threading.Timer(1.0, stack.stopping.set).start()
    begun = time.monotonic()
    stack.start()
    stack.hurry.set()
    stack.stop()
    assert time.monotonic() - begun < 15


def test_a_folder_with_the_names_of_our_packages_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = make_hostile_folder(tmp_path / "project")
    monkeypatch.chdir(project)
    monkeypatch.setenv("PYTHONPATH", str(project))
    stack, _ = make_stack(tmp_path, "load_forever")
    log = tmp_path / "logs" / "frontend-1.log"

    def stop_once_the_frontend_listens() -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and not (log.exists() and "listening" in log.read_text()):
            time.sleep(0.1)
        stack.stopping.set()

    threading.Thread(target=stop_once_the_frontend_listens).start()
    stack.start()
    folder = Path(f"/proc/{stack.parts[0].pid}/cwd").resolve()
    assert list(folder.iterdir()) == [], "the stubs search it for modules"
    stack.hurry.set()
    stack.stop()
    assert "listening" in log.read_text(), log.read_text()
    assert not folder.exists()


def test_urls(tmp_path: Path) -> None:
    stack, _ = make_stack(tmp_path, "refuse", "--host", "0.0.0.0", "--served-model-name", "a", "b", "--api-key", "k")
    assert stack.url == f"http://127.0.0.1:{stack.ports.frontend}"
    assert stack.grpc_url == f"127.0.0.1:{stack.ports.grpc}"
    assert stack.triton_http_url == f"http://127.0.0.1:{stack.ports.http}"
    assert stack.metrics_url == f"http://127.0.0.1:{stack.ports.metrics}/metrics"
    assert stack.model_names == ("a", "b")
    assert stack.needs_key


def test_several_models_are_planned_and_nothing_is_loaded_by_tritonserver_itself(tmp_path: Path) -> None:
    stack, _ = make_stack(tmp_path, "refuse")
    file = tmp_path / "models.yaml"
    file.write_text(f"models: {{a: {{model: {tmp_path / 'tiny'}, aliases: [x]}}, b: {{model: {tmp_path / 'tiny'}}}}}")
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "0"}
    line = ["--models", str(file), "--triton", str(FAKE), *FREE_PORTS]
    several = Stack(line, environment=environment, console=Console(quiet=True))
    assert several.model_names == ("a", "x", "b")
    assert several.several is not None and several.several.options.model_repository.is_dir()
    for each, expected in ((stack, True), (several, False)):
        command = triton_command(each.server, each.options, each.ports, "key")
        assert ("--load-model=*" in command) is expected
        assert ("--strict-readiness=false" in command) is not expected
        assert "--model-control-mode=explicit" in command
    folder = several.several.options.model_repository
    several.stop()
    stack.stop()
    assert not folder.exists()


class FakeModels:
    """Several models in these states, of which none changes."""

    def __init__(self, **states: str) -> None:
        reasons = {name: "no such tokenizer" if state == FAILED else None for name, state in states.items()}
        self.states = {
            name: ModelState(state=state, ensemble=name, engine=name, reason=reasons[name])
            for name, state in states.items()
        }
        self.settled = LOADING not in states.values()

    def step(self) -> None:
        """Nothing changes."""


def several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *more: str, **states: str) -> Stack:
    """A stack of models in these states, whose tritonserver is a fake and whose frontends serve at once."""
    one, _ = make_stack(tmp_path, "load_forever")
    line = [word for name in states for word in ("--model", f"{name}={tmp_path / 'tiny'}")]
    environment = os.environ | {"FAKE_TRITONSERVER": "load_forever", "VLLM_CPU_KVCACHE_SPACE": "0"}
    line += ["--triton", str(FAKE), "--log-dir", str(tmp_path / "logs"), *FREE_PORTS, *more]
    stack = Stack(line, environment=environment, console=one.console)
    monkeypatch.setattr(stack.several, "start", lambda *arguments, **options: {})
    monkeypatch.setattr(stack.several, "_models", FakeModels(**states))
    monkeypatch.setattr(stack, "_late_part", lambda: None)
    return stack


def test_the_start_ends_when_each_model_serves_or_has_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = several(tmp_path, monkeypatch, a=READY, b=FAILED)
    with stack:
        assert stack.several is not None
        assert stack.several.failures == {"b": "no such tokenizer"}
        stack.hurry.set()


def test_a_start_without_any_model_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = several(tmp_path, monkeypatch, a=FAILED, b=FAILED)
    said = r"no model could be loaded \(a: no such tokenizer; b: no such tokenizer\)\."
    with pytest.raises(LaunchError, match=said), stack:
        pytest.fail("started")
    assert stack.parts == ()


def test_a_model_that_loads_for_ever_does_not_keep_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = several(tmp_path, monkeypatch, "--ready-timeout", "1", a=READY, b=LOADING)
    with stack:
        assert stack.several is not None and stack.several.failures == {"b": "loading"}
        stack.hurry.set()


def test_models_that_all_load_for_ever_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = several(tmp_path, monkeypatch, "--ready-timeout", "1", a=LOADING, b=LOADING)
    with pytest.raises(LaunchError, match=r"not ready after .* s; still missing: a, b"), stack:
        pytest.fail("started")


def test_a_wrong_file_of_models_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("models: {a: {model: /nowhere}}")
    with pytest.raises(LaunchError, match="model 'a': there is no folder /nowhere"):
        Stack(["--models", str(file), "--triton", str(FAKE), *FREE_PORTS], console=Console(quiet=True))
