# SPDX-License-Identifier: Apache-2.0
"""The examples are short, each is listed in their README, and each is run by an integration test."""

import ast
import json
import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PROGRAMS = sorted(path for path in EXAMPLES.glob("*.py") if path.name != "arguments.py")
MOST_LINES = 30


def lines_of_code(source: str) -> int:
    """The lines of a program, imports included, without docstrings, comments and empty lines."""
    tree = ast.parse(source)
    left_out: list[ast.stmt] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(node):
            left_out.append(node.body[0])
    without = {line for node in left_out for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
    lines = enumerate(source.splitlines(), 1)
    return sum(number not in without and bool(re.match(r"\s*[^#\s]", line)) for number, line in lines)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.name)
def test_an_example_is_short(program: Path) -> None:
    assert 10 <= lines_of_code(program.read_text(encoding="utf-8")) <= MOST_LINES


@pytest.mark.parametrize(
    ("program", "url"),
    [
        ("chat.py", "http://127.0.0.1:1/v1"),
        ("triton_grpc.py", "127.0.0.1:1"),
        ("triton_http.py", "http://127.0.0.1:1"),
    ],
)
def test_without_a_server_an_example_ends_with_one_line(program: str, url: str) -> None:
    line = [sys.executable, str(EXAMPLES / program), "--url", url, "Hello"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr


CALL = {"id": "1", "type": "function", "function": {"name": "get_postcode", "arguments": '{"location": "Boston"}'}}
ALWAYS_CALLS: dict[str, object] = {"role": "assistant", "content": None, "tool_calls": [CALL]}
EMPTY: dict[str, object] = {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    ("message", "status", "printed", "said"), [(ALWAYS_CALLS, 1, 5, "no answer"), (EMPTY, 0, 1, "")]
)
def test_the_end_of_function_calls(message: dict[str, object], status: int, printed: int, said: str) -> None:
    class Model(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = json.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/v1"
        line = [sys.executable, str(EXAMPLES / "tools.py"), "--url", url, "--model", "m"]
        done = subprocess.run(line, capture_output=True, text=True, timeout=120, env=os.environ | {"NO_PROXY": "*"})
        server.shutdown()
    assert (done.returncode, done.stdout.count("\n")) == (status, printed), done.stderr
    assert done.stderr.startswith(said) and bool(done.stderr) is bool(said)


STREAMING = {
    "text_file.py": ["FILE"],
    "lora.py": ["Write about the sea."],
    "pictures.py": ["Who are you?"],
    "video.py": ["https://example.com/film.mp4", "What happens?"],
    "video_frames.py": ["https://example.com/frame.png"],
    "rag.py": ["What is this?", "FILE"],
}


@pytest.mark.parametrize("program", STREAMING)
def test_an_answer_is_printed_while_it_is_generated(program: str, tmp_path: Path) -> None:
    """The server sends the end of its answer only when the beginning has been printed."""
    text = tmp_path / "text.txt"
    text.write_text("x" * 1000)
    seen = threading.Event()

    class Model(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._json({"object": "list", "data": [{"id": "m", "object": "model", "created": 0, "owned_by": "x"}]})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.path.endswith("/embeddings"):
                vectors = [{"index": index, "embedding": [1.0], "object": "embedding"} for index in range(2)]
                self._json({"object": "list", "data": vectors, "model": "m"})
                return
            self._start("text/event-stream")
            self._chunk("The beginning,")
            if seen.wait(60):
                self._chunk(" and the end.")
                self.wfile.write(b"data: [DONE]\n\n")

        def _start(self, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()

        def _json(self, body: dict[str, object]) -> None:
            self._start("application/json")
            self.wfile.write(json.dumps(body).encode())

        def _chunk(self, text: str) -> None:
            choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
            self.wfile.write(f"data: {json.dumps({'choices': [choice]})}\n\n".encode())

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        words = [str(text) if word == "FILE" else word for word in STREAMING[program]]
        url = f"http://127.0.0.1:{server.server_port}/v1"
        line = [sys.executable, str(EXAMPLES / program), "--url", url, *words]
        environment = os.environ | {"NO_PROXY": "*"}
        with subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, text=True
        ) as client:
            assert client.stdout is not None
            printed = ""
            while "The beginning," not in printed and (letter := client.stdout.read(1)):
                printed += letter
            running = client.poll() is None
            seen.set()
            rest, errors = client.communicate(timeout=60)
        server.shutdown()
    assert running and "The beginning," in printed, errors
    assert rest.strip() == "and the end."
    assert program != "text_file.py" or errors.startswith("1,000 characters to read")


def test_lines_of_code() -> None:
    assert lines_of_code('"""About.\n\nMore."""\n\nimport os\n\n# Why.\nprint(\n    os.name\n)  # how\n') == 4


def test_the_readme_lists_every_example() -> None:
    listed = re.findall(
        r"^\| \[(\w+\.py)\]\(\1\) \|", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(listed) == [path.name for path in PROGRAMS]


def test_every_example_is_run_by_a_test() -> None:
    folder = ROOT / "tests" / "integration"
    tests = "".join((folder / name).read_text(encoding="utf-8") for name in ("test_examples.py", "test_embeddings.py"))
    assert {path.name for path in PROGRAMS} <= set(re.findall(r'"(\w+\.py)"', tests))
