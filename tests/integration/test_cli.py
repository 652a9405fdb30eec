# SPDX-License-Identifier: Apache-2.0
"""`triton-chat` as users run it: each command in a process of its own, the chat in a terminal."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from scripts.launcher import FREE_PORTS
from tests.support.demo_stack import DemoStack
from tests.support.hostile_folder import make_hostile_folder
from tests.support.scripted import ENVIRONMENT, SCRIPT, ScriptedStack, check_clean_stop, scripted_line
from tests.support.terminal import CTRL_C, CTRL_D, Terminal, terminal
from tests.support.vlm_checkpoints import make_internvl, make_tokenizer
from tests.support.waiting import PATIENCE_S, running_requests, wait_until

TRITON_CHAT = str(Path(sys.executable).with_name("triton-chat"))
ENDLESS = {"contains": "on and on", "text": "further ", "repeat": True, "delay_s": 0.05}


def run(*line: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one command; returns its status and output."""
    return subprocess.run(
        [TRITON_CHAT, *line],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ | environment,
    )


@contextmanager
def conversation(url: str, *flags: str) -> Iterator[Terminal]:
    """Start a chat in a terminal and wait for the prompt."""
    # No history is kept, and nothing answers where the cursor is.
    environment = os.environ | {"XDG_STATE_HOME": os.devnull, "PROMPT_TOOLKIT_NO_CPR": "1"}
    with terminal([TRITON_CHAT, "chat", "--url", url, *flags], environment) as screen:
        screen.wait_for("Ctrl-D ends")
        screen.wait_for_prompt()
        yield screen


def test_serve_runs_until_a_signal(qwen3_tokenizer_dir: Path, tmp_path: Path) -> None:
    """With options of `vllm serve`: those that the launcher does not know go to the engine.

    It is started in a project's folder whose packages have the names of ours, and which PYTHONPATH names as well.
    """
    project = make_hostile_folder(tmp_path / "project")
    line = scripted_line("qwen3", qwen3_tokenizer_dir, tmp_path)
    (tmp_path / SCRIPT).write_text('[{"text": "Hello there."}]')
    engine = ["--max-model-len", "4k", "--gpu-memory-utilization", "0.9", "--enable-chunked-prefill", "-tp", "1"]
    process = subprocess.Popen(
        [TRITON_CHAT, "serve", *line, *engine, "--served-model-name", "mine"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=project,
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(project)},
    )
    try:
        assert process.stderr is not None
        lines = []
        for text in process.stderr:
            lines.append(text)
            if text.startswith("Try:"):
                break
        found = re.search(r"ready: (\S+)/v1 serves mine", "".join(lines))
        assert found, "".join(lines)
        assert httpx.get(f"{found[1]}/v1/models", timeout=PATIENCE_S).json()["data"][0]["max_model_len"] == 4000
        answer = run("chat", "--url", found[1], "Hi")
        assert (answer.returncode, answer.stdout) == (0, "Hello there.\n"), answer.stderr
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
    check_clean_stop(tmp_path / "logs")


def test_a_single_answer_with_its_thoughts_beside_it(scripted_qwen3: ScriptedStack) -> None:
    scripted_qwen3.play({"contains": "<|im_start|>", "text": "<think>\nShort thoughts.\n</think>\n\n**Fine.**\n"})
    url = scripted_qwen3.stack.url
    answer = run("chat", "--url", url, "How are you?")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip() == "**Fine.**"
    assert answer.stderr.strip() == "Short thoughts."


def test_standard_input_becomes_part_of_the_question(scripted_qwen3: ScriptedStack) -> None:
    scripted_qwen3.play({"contains": "Summarise:\n\nline one\nline two", "text": "Two lines."})
    answer = run("chat", "--url", scripted_qwen3.stack.url, "Summarise:", stdin="line one\nline two\n")
    assert answer.stdout == "Two lines.\n", answer.stderr


def test_ctrl_c_stops_the_answer_and_not_the_program(scripted_qwen3: ScriptedStack) -> None:
    stack = scripted_qwen3.stack
    scripted_qwen3.play({"contains": "What now", "text": "**Now** we talk."}, ENDLESS)
    wait_until(lambda: running_requests(stack) == 0, "an idle engine")
    with conversation(stack.url, "--max-tokens", "4000") as screen:
        screen.type("Go on and on\n")
        screen.wait_for("further")
        wait_until(lambda: running_requests(stack) == 1, "the request is seen running")
        screen.type(CTRL_C)
        screen.wait_for("stopped")
        wait_until(lambda: running_requests(stack) == 0, "the engine drops the answer that was stopped", 30)
        screen.type("What now?\n")
        screen.wait_for("Now we talk.")
        assert screen.process.poll() is None
        screen.type(CTRL_C)
        screen.wait_for("/quit or Ctrl-D ends")
        screen.type("/quit\n")
        assert screen.process.wait(30) == 0


def test_ctrl_c_before_the_first_word(scripted_qwen3: ScriptedStack) -> None:
    stack = scripted_qwen3.stack
    scripted_qwen3.play({"contains": "slow", "text": "late", "delay_s": 600}, {"contains": "", "text": "Quick."})
    with conversation(stack.url) as screen:
        screen.type("slow\n")
        wait_until(lambda: running_requests(stack) == 1, "the request is seen running")
        screen.type(CTRL_C)
        screen.wait_for("stopped")
        wait_until(lambda: running_requests(stack) == 0, "the engine drops the request", 30)
        # The unanswered question is not part of the conversation any more, or the first rule would play.
        screen.type("Hi\n")
        screen.wait_for("Quick.")
        screen.wait_for("the first after")
        screen.wait_for_prompt()
        screen.type(CTRL_D)
        assert screen.process.wait(30) == 0


def test_ctrl_c_ends_a_single_answer(scripted_qwen3: ScriptedStack) -> None:
    stack = scripted_qwen3.stack
    scripted_qwen3.play(ENDLESS)
    command = [TRITON_CHAT, "chat", "--url", stack.url, "--max-tokens", "4000", "Go on and on"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        assert asking.stdout.read(8) == b"further "
        asking.send_signal(signal.SIGINT)
        printed = asking.communicate(timeout=60)[1].decode()
    assert asking.returncode == 130
    assert printed.strip() == "stopped"
    wait_until(lambda: running_requests(stack) == 0, "the engine drops the answer that was stopped", 30)


def test_a_conversation_in_the_terminal(scripted_qwen3: ScriptedStack) -> None:
    rules = [
        {"contains": "be a pirate", "text": "Arr."},
        {"contains": "Tell me more", "text": "More of it."},
        {"contains": "Hello", "text": "<think>\nDeep thoughts.\n</think>\n\n# Title\n\nSome **bold** text."},
        {"contains": "", "text": "Nothing said before."},
    ]
    scripted_qwen3.play(*rules)
    with conversation(scripted_qwen3.stack.url) as screen:
        screen.type("Hello\n")
        screen.wait_for("Deep thoughts.")
        screen.wait_for("Some bold text.")
        screen.type("Tell me more\n")
        screen.wait_for("More of it.")
        screen.type("/system be a pirate\n")
        screen.wait_for("system prompt set")
        screen.type("Ahoy\n")
        screen.wait_for("Arr.")
        screen.type("/system\n/new\n")
        screen.wait_for("a new conversation")
        screen.type("What did I say?\n")
        screen.wait_for("Nothing said before.")
        screen.type("/image /nowhere.png\n")
        screen.wait_for("cannot be read")
        screen.type("/quit\n")
        assert screen.process.wait(30) == 0


def test_a_picture_by_its_path(demo: DemoStack) -> None:
    circle, square = demo.folder / "red-circle.png", demo.folder / "blue-square.jpg"
    answer = run("chat", "--url", demo.stack.url, "--image", str(circle), "What color is the circle?")
    assert "red" in answer.stdout.lower(), answer.stderr
    with conversation(demo.stack.url, "--plain") as screen:
        screen.type(f"/image '{square}'\n")
        screen.wait_for("1 for the next question")
        screen.type("What color is the square?\n")
        screen.wait_for("blue", seconds=PATIENCE_S)
        screen.wait_for("the first after", seconds=PATIENCE_S)
        screen.wait_for_prompt()
        screen.type(CTRL_D)
        assert screen.process.wait(30) == 0


def test_prepare_splits_once_and_prints_the_folder(tmp_path: Path) -> None:
    whole = make_internvl(tmp_path / "whole", make_tokenizer(tmp_path / "tokenizer")).path
    line = ("prepare", "--no-server", str(whole))
    first, again = (run(*line, TRITON_CHAT_CACHE=str(tmp_path / "cache")) for _ in range(2))
    assert (first.returncode, again.returncode) == (0, 0), first.stderr
    folder = Path(first.stdout.strip())
    assert folder.is_relative_to(tmp_path / "cache")
    assert again.stdout == first.stdout
    assert (folder / "vision" / "model.safetensors").is_file()


def test_prepare_finds_what_is_prepared(smollm2_dir: Path) -> None:
    found = run("prepare")
    assert (found.returncode, found.stdout) == (0, f"{smollm2_dir}\n"), found.stderr


def test_build_makes_the_file_that_the_doctor_misses(tmp_path: Path) -> None:
    whole = make_internvl(tmp_path / "whole", make_tokenizer(tmp_path / "tokenizer")).path
    cache = {"TRITON_CHAT_CACHE": str(tmp_path / "cache")}
    folder = run("prepare", "--no-server", str(whole), **cache).stdout.strip()
    doctor = ("doctor", folder, "--vit-runtime", "onnxruntime", *FREE_PORTS)
    assert "triton-chat build vit" in run(*doctor).stdout
    built = run("build", "vit", folder)
    assert built.stdout == f"{folder}/vision/model.onnx\n", built.stderr
    found = run(*doctor)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("taken", [False, True], ids=["free", "taken"])
def test_the_doctor_and_the_ports(taken: bool, smollm2_dir: Path, scripted_qwen3: ScriptedStack) -> None:
    port = scripted_qwen3.stack.ports.frontend if taken else 0
    found = run("doctor", str(smollm2_dir), *FREE_PORTS, f"--port={port}")
    assert found.returncode == (1 if taken else 0), found.stdout
    assert ("Choose another with --port; 0 picks a free one." in found.stdout) == taken
