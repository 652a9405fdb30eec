# SPDX-License-Identifier: Apache-2.0
"""Families of vision-language models through the whole stack: greedy tokens equal those of transformers.

Each family starts a server of its own, so only the few that differ most are tested, and all with `--all-families`.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from openai import OpenAI
from tokenizers import Tokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from scripts.launcher import FREE_PORTS
from tests.support.passing_stack import passing_stack
from tests.support.tiny_vlms import TINY_VLMS, make_tiny_vlm
from tests.support.vlm_dialogues import DIALOGUES, FRAMES, NEW_TOKENS, Answer, VlmReference, dialogues_of, messages_of

# Timestamps of frames and features on several layers; tiles and newlines; rows of any size. Qwen2.5-VL: test_images.py.
ALWAYS = ("qwen3_vl", "llava_onevision", "mistral3")
BYTES = {char: byte for byte, char in bytes_to_unicode().items()}
# Logits closer than this may change places in bfloat16.
ROUNDING = 0.3
pytestmark = pytest.mark.python_engine("the C++ backend takes no pictures of these families")


@dataclass(frozen=True)
class Served:
    """A family's tiny model behind the API, and what transformers answers."""

    family: str
    client: OpenAI
    tokenizer: Tokenizer
    answers: dict[str, Answer]

    def check(self, dialogue: str) -> None:
        expected = self.answers[dialogue]
        answer = self.client.chat.completions.create(
            model="",
            messages=messages_of(DIALOGUES[dialogue]),
            temperature=0,
            max_tokens=NEW_TOKENS,
            logprobs=True,
            extra_body={"skip_special_tokens": False, "ignore_eos": True},
        )
        assert answer.usage.prompt_tokens == len(expected.prompt_ids), dialogue
        assert answer.usage.completion_tokens == NEW_TOKENS
        ids = expected.clear_ids(ROUNDING if TINY_VLMS[self.family].bfloat16 else 0)
        found = [bytes(token.bytes) for token in answer.choices[0].logprobs.content]
        assert found[: len(ids)] == [self.spelled(token) for token in ids], dialogue

    def spelled(self, token: int) -> bytes:
        """The bytes of a token, most of which are no text; empty for an id past the tokenizer's."""
        piece = self.tokenizer.id_to_token(token) or ""
        added = token in self.tokenizer.get_added_tokens_decoder()
        return piece.encode() if added else bytes(BYTES[char] for char in piece)


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    family = request.param
    folder = make_tiny_vlm(family, tmp_path_factory.mktemp(family) / "model")
    reference = VlmReference(folder, family)
    names = [name for name in dialogues_of(family) if name not in TINY_VLMS[family].unanswered]
    answers = {name: reference.answer(DIALOGUES[name]) for name in names}
    dtype = "bfloat16" if TINY_VLMS[family].bfloat16 else "float32"
    flags = ["--dtype", dtype, "--max-model-len", "1024", "--video-frames", str(FRAMES), "--vision", "engine"]
    # By default InternVL gets the prompts of InternVL2.5, and each process takes 1 GB.
    flags += ["--styler", "default", "--preprocessing-instances", "1", *FREE_PORTS]
    flags += ["--trust-remote-code"] if TINY_VLMS[family].code else []
    with passing_stack([str(folder), *flags], environment=os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1"}) as running:
        client = OpenAI(base_url=f"{running.url}/v1", api_key="unused", timeout=120, max_retries=0)
        yield Served(family, client, Tokenizer.from_file(str(folder / "tokenizer.json")), answers)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    every = [name for name, tiny in TINY_VLMS.items() if tiny.answers]
    families = every if metafunc.config.getoption("--all-families") else ALWAYS
    metafunc.parametrize("served", families, indirect=True, scope="module")


def test_greedy_tokens(served: Served) -> None:
    """One test per family: each dialogue alone, and then all of them together, twice."""
    for dialogue in served.answers:
        served.check(dialogue)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(served.check, [*served.answers, *reversed(served.answers)]))
    pictures = [served.answers[name].ids for name in ("picture", "another picture")]
    assert pictures[0] != pictures[1], "the answer depends on the picture"
