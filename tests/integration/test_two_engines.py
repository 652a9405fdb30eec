# SPDX-License-Identifier: Apache-2.0
"""Two real engines in one server: a chat model with LoRA adapters, and a model of embeddings."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
import tritonclient.grpc as grpc
import yaml
from openai import NotFoundError, OpenAI
from transformers import AutoTokenizer

from scripts.launcher import FREE_PORTS, Stack
from tests.support.adapters import greedy_ids, make_adapter
from tests.support.checkpoints import make_checkpoint
from tests.support.greedy import NEW_TOKENS, QUESTIONS, check_greedy
from tests.support.pooling_checkpoints import TEXTS, embeddings_of, make_qwen3_embedding
from tests.support.waiting import PATIENCE_S, wait_until

CHAT, ALIAS, EMBEDDER = "zephyr", "gpt-4o", "embedder"
ADMIN_KEY = "boss"
TRIES = 8  # connections, each of which goes to one of two frontends
# Both compute in float32.
TOLERANCE = 1e-5

pytestmark = [
    pytest.mark.timeout(600),
    pytest.mark.python_engine("these are vLLM's"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="vLLM's kernels of adapters for GPUs have half precision"),
]


@dataclass(frozen=True)
class Two:
    """The running stack. chat: the checkpoint of CHAT, with its adapters in `adapters`. embeddings: those of TEXTS."""

    stack: Stack
    chat: Path
    adapters: Path
    embeddings: Any

    @property
    def client(self) -> OpenAI:
        return OpenAI(base_url=f"{self.stack.url}/v1", api_key="unused", timeout=PATIENCE_S, max_retries=0)

    def post(self, path: str, **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        return httpx.post(f"{self.stack.url}/v1/{path}", json=body, headers=headers, timeout=PATIENCE_S)

    def triton_chat(self, *words: str) -> str:
        """The output of `triton-chat models ...`, while this thread supervises the stack."""
        command = [sys.executable, "-m", "scripts.cli", "models", *words, "--port", str(self.stack.ports.frontend)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
            end = time.monotonic() + 2 * PATIENCE_S
            while process.poll() is None:
                assert time.monotonic() < end, words
                self.stack.restart_dead()
                time.sleep(0.05)
            assert process.stdout is not None
            output = process.stdout.read()
        assert process.returncode == 0, output
        return output

    def everywhere(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until a condition holds at each of some connections, and so in each of two frontends."""
        wait_until(lambda: all(condition() for _ in range(TRIES)), what)

    def check_embeddings(self) -> None:
        made = self.client.embeddings.create(model=EMBEDDER, input=list(TEXTS))
        assert np.allclose([one.embedding for one in made.data], self.embeddings, rtol=0, atol=TOLERANCE)

    def answer(self, name: str, prompt: list[int]) -> str:
        """A greedy answer, whose end no token may be."""
        more = {"ignore_eos": True, "skip_special_tokens": False}
        made = self.client.completions.create(
            model=name, prompt=prompt, temperature=0, max_tokens=NEW_TOKENS, extra_body=more
        )
        return made.choices[0].text

    @contextmanager
    def steady(self, path: str, **body: Any) -> Iterator[list[int]]:
        """Requests one after the other while the block runs; yields the statuses, in which the first one is."""
        statuses, stop = [self.post(path, **body).status_code], threading.Event()

        def ask() -> None:
            # With pauses: the cores are for the engines.
            while not stop.wait(0.2):
                statuses.append(self.post(path, **body).status_code)

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        try:
            yield statuses
        finally:
            stop.set()
            thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def two(smollm2_dir: Path, qwen3_tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    folder = tmp_path_factory.mktemp("two")
    chat = make_checkpoint("llama", smollm2_dir, folder / "llama")
    adapters = folder / "adapters"
    for seed, name in enumerate(("sql", "poet"), 1):
        make_adapter(chat, adapters / name, seed)
    embedder = make_qwen3_embedding(qwen3_tokenizer_dir, folder / "qwen3-embedding")
    models = {
        CHAT: {
            **{"model": str(chat), "aliases": [ALIAS], "max_model_len": 1024, "enable_lora": True, "max_loras": 2},
            **{"lora_modules": {"sql": str(adapters / "sql")}, "allowed_lora_path": str(adapters)},
        },
        EMBEDDER: {"model": str(embedder), "kind": "embedding"},
    }
    file = folder / "models.yaml"
    file.write_text(yaml.safe_dump({"models": models}, sort_keys=False), encoding="utf-8")
    flags = ["--dtype", "float32", "--log-dir", str(folder / "logs"), "--admin-key", ADMIN_KEY, "--frontends", "2"]
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}
    with Stack(["--models", str(file), *flags, *FREE_PORTS], environment=environment) as running:
        yield Two(running, chat, adapters, embeddings_of(embedder, TEXTS, "last").numpy())


def test_the_list_has_the_order_of_the_file_and_the_adapters(two: Two) -> None:
    listed = httpx.get(f"{two.stack.url}/v1/models", timeout=PATIENCE_S).json()["data"]
    assert [(one["id"], one["parent"], one["kind"], one["max_model_len"]) for one in listed] == [
        (CHAT, None, "chat", 1024),
        (ALIAS, None, "chat", 1024),
        # Nobody has set it: the checkpoint's.
        (EMBEDDER, None, "embedding", 2048),
        ("sql", CHAT, "chat", 1024),
    ]
    assert list(json.loads(two.triton_chat("list", "--json"))["models"]) == [CHAT, EMBEDDER]


def test_each_computes_what_transformers_does_at_the_same_time(two: Two) -> None:
    with two.steady("embeddings", model=EMBEDDER, input=TEXTS[0]) as statuses:
        for question in QUESTIONS:
            check_greedy(two.client, two.chat, question, torch.float32, CHAT)
    assert set(statuses) == {200}
    two.check_embeddings()


def test_adapters_answer_as_with_peft(two: Two) -> None:
    """One of them loaded while the server runs, and all in one batch with the base."""
    poet = {"lora_name": "poet", "lora_path": str(two.adapters / "poet")}
    for wrong, names in (
        (poet, "base_model_name"),
        (poet | {"base_model_name": CHAT, "lora_path": str(two.chat)}, "allowed_lora_path"),
        (poet | {"base_model_name": EMBEDDER}, "base_model_name"),
    ):
        refused = two.post("load_lora_adapter", **wrong)
        assert refused.status_code == 400 and names in refused.text, refused.text
    loaded = two.post("load_lora_adapter", **poet, base_model_name=CHAT)
    assert loaded.status_code == 200, loaded.text
    parents = {CHAT: None, ALIAS: None, EMBEDDER: None, "sql": CHAT, "poet": CHAT}
    two.everywhere(lambda: {one.id: one.parent for one in two.client.models.list().data} == parents, "it is listed")

    tokenizer = AutoTokenizer.from_pretrained(two.chat)
    prompt = tokenizer.encode(QUESTIONS[2])
    paths = {CHAT: None, "sql": two.adapters / "sql", "poet": two.adapters / "poet"}
    expected = {name: greedy_ids(two.chat, path, prompt, NEW_TOKENS) for name, path in paths.items()}
    assert len(set(map(tuple, expected.values()))) == 3
    with ThreadPoolExecutor(9) as threads:
        answers = list(threads.map(lambda name: two.answer(name, prompt), list(paths) * 3))
    assert answers == [tokenizer.decode(expected[name]) for name in paths] * 3

    assert two.post("unload_lora_adapter", lora_name="poet").status_code == 200
    two.everywhere(lambda: "poet" not in {one.id for one in two.client.models.list().data}, "it is gone")
    with pytest.raises(NotFoundError):
        two.answer("poet", prompt)
    assert two.answer("sql", prompt) == tokenizer.decode(expected["sql"])


def test_a_model_of_the_other_kind_is_refused(two: Two) -> None:
    messages = [{"role": "user", "content": "Hi"}]
    for path, body in (
        ("chat/completions", {"model": EMBEDDER, "messages": messages}),
        ("embeddings", {"model": CHAT, "input": "Hi"}),
        ("embeddings", {"model": "sql", "input": "Hi"}),
    ):
        refused = two.post(path, **body)
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "model"), path


def test_triton_clients_call_the_model_by_its_name(two: Two) -> None:
    with grpc.InferenceServerClient(two.stack.grpc_url) as client:
        texts = grpc.InferInput("text_input", [len(TEXTS)], "BYTES")
        texts.set_data_from_numpy(np.array([one.encode() for one in TEXTS], dtype=object))
        made = client.infer(EMBEDDER, [texts])
    assert np.allclose(made.as_numpy("embedding"), two.embeddings, rtol=0, atol=TOLERANCE)


def test_one_is_unloaded_and_loaded_again_beside_the_other(two: Two) -> None:
    with two.steady("completions", model="sql", prompt="Hi", max_tokens=4, temperature=0) as beside:
        two.triton_chat("unload", EMBEDDER)
        two.everywhere(lambda: two.post("embeddings", model=EMBEDDER, input="Hi").status_code == 404, "it is gone")
        two.triton_chat("load", EMBEDDER)
        two.check_embeddings()
    assert set(beside) == {200}
