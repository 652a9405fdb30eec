# SPDX-License-Identifier: Apache-2.0
"""Frames at a rate are those of vLLM's own loader of the model, which decodes the same videos here."""

import base64
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vllm.config import ModelConfig
from vllm.multimodal.media import MediaConnector

from engines.vllm.frames import AtRate, loader_of
from tests.support.videos import video

RULES = ("Qwen2VLVideoProcessor", "Qwen3VLVideoProcessor", "Glm4vVideoProcessor", "Glm46VVideoProcessor")


def rule(folder: Path, processor: str) -> AtRate | None:
    own = folder / processor
    own.mkdir(exist_ok=True)
    (own / "preprocessor_config.json").write_text(json.dumps({"video_processor_type": processor}))
    return loader_of(cast(ModelConfig, SimpleNamespace(model=str(own), revision=None)))


@pytest.mark.parametrize("fps", [1, 2, 3.7])
@pytest.mark.parametrize("processor", [name for name in RULES if name != "Glm46VVideoProcessor"])
def test_as_vllm(tmp_path: Path, processor: str, fps: float) -> None:
    film = video(frames=57)
    url = f"data:video/mp4;base64,{base64.b64encode(film).decode()}"
    connector = MediaConnector(media_io_kwargs={"video": {"fps": fps}})
    loaded: Any = connector.fetch_video(url, video_processor=processor)
    at_rate = rule(tmp_path, processor)
    assert at_rate is not None
    assert at_rate(57, 10.0, fps, 128) == loaded.media[1]["frames_indices"]


@pytest.mark.parametrize("processor", ["LlavaOnevisionVideoProcessor", "Molmo2VideoProcessor", "Unheard"])
def test_models_without_a_rule_of_their_own(tmp_path: Path, processor: str) -> None:
    assert rule(tmp_path, processor) is None


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> list[AtRate]:
    folder = tmp_path_factory.mktemp("rules")
    return [found for processor in RULES if (found := rule(folder, processor))]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 20_000), st.floats(0.001, 1000), st.floats(0.001, 1000), st.integers(1, 128))
def test_any_video(rules: list[AtRate], frames: int, fps: float, asked: float, most: int) -> None:
    assert len(rules) == len(RULES)
    for at_rate in rules:
        indices = at_rate(frames, fps, asked, most)
        if indices is not None:
            assert 1 <= len(indices) <= most
            assert indices == sorted(indices) and indices[0] >= 0 and indices[-1] < frames
