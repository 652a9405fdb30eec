# SPDX-License-Identifier: Apache-2.0
"""Every program of examples/ as users start it: in a process of its own, with a running stack."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from PIL import Image

from tests.support.agent_rules import call, seen
from tests.support.scripted import ROOT
from tests.support.videos import still
from tests.support.waiting import PATIENCE_S

EXAMPLES = ROOT / "examples"
AGENTS_PYTHON = ROOT / ".cache" / "agents-venv" / "bin" / "python"
FRANCE = "Please name the capital of France."


def command(example: str, url: str, *arguments: str, python: Path | str = sys.executable) -> dict:
    """Arguments of subprocess that start an example; it must only connect to the server."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "OPENAI"))}
    environment |= {"NO_PROXY": "127.0.0.1", "LANGSMITH_TRACING": "false", "PYTHONUTF8": "1"}
    started = [str(python), str(EXAMPLES / example), "--url", url, *arguments]
    return {"args": started, "env": environment, "encoding": "utf-8"}


def run(example: str, url: str, *arguments: str, python: Path | str = sys.executable) -> str:
    """Run an example; returns what it prints."""
    done = subprocess.run(
        **command(example, url, *arguments, python=python),
        capture_output=True,
        timeout=2 * PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.strip()


class TestText:
    """Scripted answers: they depend on the whole prompt."""

    @pytest.fixture
    def qwen3(self, scripted_qwen3):
        return scripted_qwen3

    @pytest.fixture
    def url(self, scripted_qwen3) -> str:
        return f"{scripted_qwen3.stack.url}/v1"

    @pytest.mark.parametrize("stream", [(), ("--stream",)], ids=["whole", "streamed"])
    @pytest.mark.parametrize("thinking", [True, False])
    def test_chat(self, qwen3, url, stream, thinking):
        qwen3.play(
            seen("你是谁？<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>", "我是通义千问。"),
            seen("你是谁？", "<think>\n用户问我是谁。\n</think>\n\n你好！我是通义千问。🌤️"),
        )
        printed = run("chat.py", url, "你好，你是谁？", *stream, *(() if thinking else ("--no-thinking",)))
        expected = "[thinking] 用户问我是谁。\n[answer] 你好！我是通义千问。🌤️" if thinking else "我是通义千问。"
        if not stream:
            expected += f"\n({24 if thinking else 28} tokens read, "
        assert printed.startswith(expected)
        assert stream == () or printed == expected

    def test_a_stream_is_printed_while_it_is_written(self, qwen3, url):
        """The answer does not end during the test."""
        qwen3.play({"text": "one two ", "repeat": True, "delay_s": 0.1})
        streaming = command("chat.py", url, "Count!", "--stream", "--no-thinking")
        with subprocess.Popen(**streaming, stdout=subprocess.PIPE) as client:
            try:
                assert client.stdout is not None and client.stdout.read(20) == "one two one two one "
                assert client.poll() is None
            finally:
                client.kill()

    def test_a_long_text_file(self, qwen3, url, tmp_path):
        novel, question = tmp_path / "novel.txt", "上面这篇小说作者是谁？"
        lines = [f"第{number}章。楚云霁在雪地里走了很久，终于看见了一只白狼。" for number in range(1, 1200)]
        novel.write_text("\n".join(["作者：弦三千", *lines]), encoding="utf-8")
        qwen3.play(seen(f"{lines[-1]}\n\n{question}<|im_end|>", "作者是**弦三千**。"))
        printed = run("text_file.py", url, str(novel), question)
        assert printed.startswith("作者是**弦三千**。\n(")
        assert int(re.findall(r"\((\d+) tokens read", printed)[0]) > 20_000

    @pytest.mark.parametrize("together", [True, False], ids=["at once", "one after the other"])
    def test_two_function_calls(self, qwen3, url, together):
        postcode = call("get_postcode", location="Boston")
        weather = call("get_current_weather", location="Boston", unit="celsius")
        results = "<tool_response>\n02138\n</tool_response>", "<tool_response>\n15.0\n</tool_response>"
        final = seen("\n".join(results), "The postcode is 02138, and it is 15 °C.")
        if together:
            qwen3.play(final, seen("postcode of Boston", f"{postcode}\n{weather}"))
        else:
            final = final | {"contains": results[1]}
            qwen3.play(final, seen(results[0], weather), seen("postcode of Boston", postcode))
        assert run("tools.py", url).splitlines() == [
            'get_postcode({"location": "Boston"}) -> 02138',
            'get_current_weather({"location": "Boston", "unit": "celsius"}) -> 15.0',
            "The postcode is 02138, and it is 15 °C.",
        ]

    @pytest.mark.parametrize("example", ["llamaindex_agent.py", "langchain_agent.py"])
    def test_agents(self, qwen3, url, example):
        weather = call("get_weather", location="Boston, MA", unit="fahrenheit")
        qwen3.play(
            seen("<tool_response>\nIt is 59.0 fahrenheit in Boston, MA.", "It is 59.0 °F. 🌤️"),
            seen("weather like in Boston today?", f"<think>\nI need the tool.\n</think>\n\n{weather}"),
        )
        assert run(example, url, python=AGENTS_PYTHON).splitlines() == [
            "get_weather({'location': 'Boston, MA', 'unit': 'fahrenheit'}) -> It is 59.0 fahrenheit in Boston, MA.",
            "It is 59.0 °F. 🌤️",
        ]

    def test_a_batch(self, qwen3, url, tmp_path):
        """More requests than are sent at once, one of which is refused."""
        names, questions, answers = [str(n) for n in range(7)], tmp_path / "requests.jsonl", tmp_path / "answers.jsonl"
        qwen3.play(*(seen(f"number {name}<", f"answer {name}") for name in names))
        bodies = [
            {"messages": [{"role": "user", "content": f"number {name}"}], "enable_thinking": False} for name in names
        ]
        bodies[3]["temperature"] = "hot"
        lines = [{"custom_id": name, "body": body} for name, body in zip(names, bodies, strict=True)]
        questions.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
        assert run("batch.py", url, str(questions), str(answers), "--at-once", "2") == ""
        done = {one.pop("custom_id"): one for one in map(json.loads, answers.read_text(encoding="utf-8").splitlines())}
        assert sorted(done) == names
        assert done.pop("3")["error"]["param"] == "temperature"
        for name, one in done.items():
            assert one["response"]["body"]["choices"][0]["message"]["content"] == f"answer {name}"


class TestAdapters:
    def test_every_adapter_of_a_model_is_asked(self, double_qwen3):
        double_qwen3.play(seen("about the sea", "The sea."))
        printed = run("lora.py", f"{double_qwen3.stack.url}/v1", "Write about the sea.").splitlines()
        assert printed == [f"[{name}] The sea." for name in ("qwen3", "sql", "poet")]
        assert "lora_task_id" in double_qwen3.asked_double(), "the last request went to an adapter"


class TestImages:
    """The demo model's answers on pictures that are not in its training data."""

    @pytest.fixture
    def url(self, demo) -> str:
        return f"{demo.stack.url}/v1"

    @pytest.mark.parametrize("place", ["path", "file", "http", "https"])
    def test_an_image(self, demo, url, place):
        picture = demo.folder / "three-yellow.webp"
        places = {"path": str(picture), "file": picture.as_uri()}
        places |= {scheme: f"{getattr(demo, scheme)}/{picture.name}" for scheme in ("http", "https")}
        printed = run("pictures.py", url, "--image", places[place], "<image>How many circles are there?")
        assert "three" in printed.lower()

    def test_a_dialogue_about_two_images(self, demo, url):
        images = [str(demo.folder / name) for name in ("red-circle.png", "blue-square.jpg")]
        questions = ["Image-1: <image> Image-2: <image> What is in the second image?", "What is in the first image?"]
        flags = [word for image in images for word in ("--image", image)]
        first, second = run("pictures.py", url, *flags, *questions).lower().split("\n\n")
        assert "blue square" in first and "red circle" in second

    def test_video_frames(self, demo, url):
        frames = [str(demo.folder / name) for name in ("red-circle.png", "word.png", "blue-square.jpg")]
        printed = run("video_frames.py", url, *frames, "--question", "What is in the third image?")
        assert "blue square" in printed.lower()

    def test_a_video(self, demo, url, tmp_path):
        film = tmp_path / "film.mp4"
        film.write_bytes(still(Image.open(demo.folder / "red-circle.png")))
        for flags in ((), ("--fps", "2"), ("--frames", "3")):
            assert "red" in run("video.py", url, str(film), "What color is the circle?", *flags).lower()

    def test_triton_grpc_with_an_image(self, demo):
        picture = str(demo.folder / "red-circle.png")
        printed = run("triton_grpc.py", demo.stack.grpc_url, "What color is the circle?", picture)
        assert "red" in printed.lower()


class TestTriton:
    """The default model through Triton itself."""

    def test_grpc(self, stack):
        assert "Paris" in run("triton_grpc.py", stack.grpc_url, FRANCE)

    def test_generate_stream(self, stack):
        assert "Paris" in run("triton_http.py", stack.triton_http_url, FRANCE)

    @pytest.mark.python_engine("its whole answer is one response and no more, which `generate` takes")
    def test_generate_gives_whole_answers(self, stack):
        body = {"text_input": "The capital of France is", "max_tokens": 8, "temperature": 0.0}
        url = f"{stack.triton_http_url}/v2/models/ensemble/generate"
        answer = httpx.post(url, json=body, timeout=PATIENCE_S).json()
        assert "Paris" in answer["text_output"] and answer["completion_tokens"] == 8
        assert "exactly 1 response" in httpx.post(url, json=body | {"stream": True}, timeout=PATIENCE_S).json()["error"]

    def test_infer_is_refused_by_triton(self, stack):
        """As the README of the examples says."""
        question = {"name": "text_input", "datatype": "BYTES", "shape": [1, 1], "data": [FRANCE]}
        url = f"{stack.triton_http_url}/v2/models/ensemble/infer"
        assert "decoupled" in httpx.post(url, json={"inputs": [question]}, timeout=PATIENCE_S).json()["error"]
