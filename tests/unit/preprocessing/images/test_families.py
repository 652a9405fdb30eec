# SPDX-License-Identifier: Apache-2.0
"""Each vision-language family: ids and features are those of vLLM for the whole prompt, and ids those of transformers."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from vllm.model_executor.models import registry
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.processing import ProcessorInputs, TimingContext

from common.shared_bytes import joined
from engines.options import EngineOptions
from engines.vllm.config import processor_config
from engines.vllm.features import unpack
from preprocessing.prompt import EngineInput, PromptBuilder, PromptRequest
from tests.support.tiny_vlms import TINY_VLMS, make_tiny_vlm
from tests.support.vlm_dialogues import DIALOGUES, FRAMES, VlmReference, chat_json, decoded, dialogues_of, media_of
from tests.support.vlm_engine import prompt_builder

MODELS = Path(__file__).parents[4] / "docs" / "models.md"
MAX_MODEL_LEN = 1024


@dataclass(frozen=True)
class Family:
    """A family's checkpoint in `preprocessing`, in vLLM and in transformers."""

    name: str
    builder: PromptBuilder
    vllm: Any
    reference: VlmReference

    def build(self, dialogue: str) -> EngineInput:
        files = tuple(medium.data for medium in media_of(DIALOGUES[dialogue]))
        return self.builder.build(PromptRequest(messages=chat_json(DIALOGUES[dialogue]), images=files))

    def as_in_transformers(self, ids: list[int]) -> list[int]:
        """For the tokens of a frame of InternVL vLLM has the video's token and transformers the picture's."""
        if self.name != "internvl":
            return ids
        frame, image = (self.builder.tokenizer.token_id(token) for token in ("<video>", "<IMG_CONTEXT>"))
        return [image if token == frame else token for token in ids]

    def build_by_vllm(self, dialogue: str) -> Any:
        """vLLM's processor on all pictures of the prompt at once."""
        data: dict[str, list[Any]] = {}
        for medium in media_of(DIALOGUES[dialogue]):
            data.setdefault(medium.kind, []).append(decoded(medium))
        prompt = self.reference.prompt(DIALOGUES[dialogue])
        own, numbered = TINY_VLMS[self.name].numbered
        for number in range(1, 1 + (prompt.count(own) if own else 0)):
            prompt = prompt.replace(own, numbered.format(number), 1)
        ids = self.builder.tokenizer.encode(prompt, add_special_tokens=False)
        inputs = ProcessorInputs(ids, self.vllm.info.parse_mm_data(data))
        return self.vllm.apply(inputs, TimingContext(enabled=False))


@pytest.fixture(scope="module", params=TINY_VLMS)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    folder = make_tiny_vlm(request.param, tmp_path_factory.mktemp(request.param) / "model", weights=False)
    options = {"dtype": "float32", "limit_mm_per_prompt": {"image": 4, "video": 1}}
    options |= TINY_VLMS[request.param].engine_options
    with pytest.MonkeyPatch.context() as patch:
        # vLLM looks at a model's class in a process of its own, which takes 8 s for each.
        patch.setattr(registry, "_run_in_subprocess", lambda look: look())
        # InternVL's own styler writes the prompts of InternVL2.5, which are not in transformers' layout.
        builder = prompt_builder(folder, MAX_MODEL_LEN, options, FRAMES, vision="engine", styler="default")
        config = processor_config(EngineOptions("vllm", str(folder), {"max_model_len": MAX_MODEL_LEN, **options}))
    reference = VlmReference(folder, request.param)
    return Family(request.param, builder, MULTIMODAL_REGISTRY.create_processor(config), reference)


def test_the_documentation_has_each_family() -> None:
    rows = re.findall(r"^\|[^|]+\| `(\w+For\w+)` \| (yes)? ?\|", MODELS.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted((tiny.served, "yes" if tiny.video else "") for tiny in TINY_VLMS.values())


def test_ids_and_features(family: Family) -> None:
    """One test per family, as each loads a checkpoint."""
    for dialogue in dialogues_of(family.name):
        built = family.build(dialogue)
        expected = family.build_by_vllm(dialogue)
        assert built.input_ids == expected["prompt_token_ids"], dialogue
        if not media_of(DIALOGUES[dialogue]):
            assert built.features is None
            continue
        assert built.features is not None
        found = unpack(torch.from_numpy(joined(built.features)), built.input_ids)
        assert found["mm_placeholders"] == expected["mm_placeholders"], dialogue
        assert found["mm_kwargs"].keys() == expected["mm_kwargs"].keys()
        for modality, items in expected["mm_kwargs"].items():
            for own, one in zip(found["mm_kwargs"][modality], items, strict=True):
                assert own.keys() == one.keys()
                for name, element in one.items():
                    assert_equal(own[name].data, element.data, f"{dialogue}: {modality} {name}")
        assert family.as_in_transformers(built.input_ids) == family.reference.prompt_ids(DIALOGUES[dialogue]), dialogue


def assert_equal(own: Any, expected: Any, name: str) -> None:
    if isinstance(expected, torch.Tensor):
        # The tiles of LLaVA's pictures are padded to the number of the picture with the most, and then not read.
        if name.endswith("pixel_values") and len(own) < len(expected):
            assert not expected[len(own) :].any(), name
            expected = expected[: len(own)]
        assert own.dtype == expected.dtype and torch.equal(own, expected), name
    elif isinstance(expected, list | tuple):
        assert len(own) == len(expected), name
        for one, other in zip(own, expected, strict=True):
            assert_equal(one, other, name)
    else:
        assert own == expected, name


def test_equal_pictures_have_equal_hashes_and_others_not(family: Family) -> None:
    def hashes(dialogue: str) -> Any:
        built = family.build(dialogue)
        assert built.features is not None
        return unpack(torch.from_numpy(joined(built.features)), built.input_ids)["mm_hashes"]

    assert hashes("picture") == hashes("picture") != hashes("another picture")
