# SPDX-License-Identifier: Apache-2.0
"""Fixtures that several test folders share."""

import gc
import os
import signal
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests.support.scripted import ALL_DOUBLES

# A shell starts what it puts in the background with Ctrl-C ignored, and programs that the tests start inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Imports make no garbage, but the collector would look through all of their objects again and again.
gc.disable()

_TOKENIZERS = Path(__file__).parent.parent / ".cache" / "tokenizers"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--all-families", action="store_true", help="tests of vision-language models: all families, a server for each"
    )
    parser.addoption(
        "--double", action="store_true", help="integration tests on the double of TensorRT-LLM's C++ backend"
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "python_engine(why): not for the double of the C++ backend")
    if config.getoption("--double"):
        os.environ[ALL_DOUBLES] = "1"


def pytest_sessionstart(session: pytest.Session) -> None:
    """In pytest-xdist's controller let the collector run: it imports no tests, and its collection never finishes."""
    if session.config.pluginmanager.hasplugin("dsession"):
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --double: leave out what needs a Python engine."""
    for item in items if config.getoption("--double") else ():
        marker = item.get_closest_marker("python_engine")
        why = (
            marker.args[0] if marker else "it has its own model" if "demo" in getattr(item, "fixturenames", ()) else ""
        )
        if why:
            item.add_marker(pytest.mark.skip(reason=f"not for the C++ backend: {why}"))


def pytest_collection_finish() -> None:
    """Keep the collector off what was imported: each full collection would take half a second."""
    gc.freeze()
    gc.enable()


def _tokenizer_dir(name: str) -> Path:
    path = Path(os.environ.get("TRITON_CHAT_TOKENIZERS", _TOKENIZERS)) / name
    if not (path / "tokenizer.json").is_file():
        pytest.fail(f"no tokenizer in {path}: run `make setup`, or set TRITON_CHAT_TOKENIZERS to the folder of {name}/")
    return path


@pytest.fixture(scope="session")
def qwen3_tokenizer_dir() -> Path:
    """Folder of Qwen3's tokenizer.json and tokenizer_config.json."""
    return _tokenizer_dir("qwen3")


@pytest.fixture(scope="session")
def gemma3_tokenizer_dir() -> Path:
    """Folder of Gemma 3's tokenizer.json and tokenizer_config.json."""
    return _tokenizer_dir("gemma3")


@pytest.fixture(scope="session")
def qwen3(qwen3_tokenizer_dir: Path) -> Tokenizer:
    """Qwen3's tokenizer: byte-level BPE."""
    return Tokenizer.from_file(str(qwen3_tokenizer_dir / "tokenizer.json"))


@pytest.fixture(scope="session")
def gemma3(gemma3_tokenizer_dir: Path) -> Tokenizer:
    """Gemma 3's tokenizer: sentencepiece with byte fallback."""
    return Tokenizer.from_file(str(gemma3_tokenizer_dir / "tokenizer.json"))
