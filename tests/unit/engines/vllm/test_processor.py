# SPDX-License-Identifier: Apache-2.0
"""The processor of a checkpoint outside the engine: its features are those of vLLM's own renderer."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import ProcessorMixin
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.renderers import renderer_from_config

from common.errors import RequestError
from common.shared_bytes import joined
from engines.vllm.features import unpack
from engines.vllm.processor import MediaProcessor, Medium
from python_backend.config import ModelParameters
from tests.support.tiny_vlms import make_tiny_vlm

ENGINE = {"dtype": "float32", "limit_mm_per_prompt": {"image": 4, "video": 2}}
FRAMES = 6
METADATA = {
    "total_num_frames": 60,
    "fps": 10.0,
    "duration": 6.0,
    "frames_indices": [0, 12, 24, 36, 48, 59],
    "video_backend": "pyav",
    "do_sample_frames": False,
}


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))


def video(seed: int = 0) -> tuple[Any, dict[str, Any]]:
    return np.random.default_rng(seed).integers(0, 256, (FRAMES, 64, 96, 3), np.uint8), METADATA


_KEYS = itertools.count()


def medium(data: Any, options: dict[str, Any] | None = None) -> Medium:
    """A picture or video under a key of its own."""
    return Medium("video" if isinstance(data, tuple) else "image", str(next(_KEYS)), lambda: data, options or {})


def load(folder: Path, instances: int = 1, **engine: Any) -> MediaProcessor:
    values = {"model_path": str(folder), "max_model_len": "2048", "engine_options": json.dumps(ENGINE | engine)}
    return MediaProcessor.load(ModelParameters("preprocessing", values, instances))


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_vlm(request.param, tmp_path_factory.mktemp("vlm") / request.param)


@pytest.fixture(scope="module")
def processor(folder: Path) -> MediaProcessor:
    return load(folder)


@pytest.fixture(scope="module")
def renderer(folder: Path) -> Any:
    args = AsyncEngineArgs(model=str(folder), max_model_len=2048, mm_processor_cache_gb=0, enforce_eager=True, **ENGINE)
    return renderer_from_config(args.create_engine_config())


def ids_of(processor: MediaProcessor, renderer: Any, kinds: list[Any]) -> list[int]:
    """A prompt with a place for each, and text around."""
    text = "".join(f"<|im_start|>{processor.placeholder(kind, 1)} and" for kind in kinds)
    return list(renderer.get_tokenizer().encode(text, add_special_tokens=False))


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ([picture(96, 64)], {}),
        ([picture(200, 30), picture(60, 220, 1), picture(96, 64, 2)], {}),
        ([picture(96, 64), video(), picture(64, 64, 1)], {}),
        ([video(), video(1)], {}),
        ([picture(200, 200), picture(300, 300, 1)], {"min_pixels": 3136, "max_pixels": 12544}),
        ([video()], {"min_pixels": 1024, "max_pixels": 12544}),
    ],
)
def test_ids_and_features_are_those_of_vllms_renderer(
    processor: MediaProcessor, renderer: Any, data: list[Any], options: dict[str, Any]
) -> None:
    media = [medium(one, options) for one in data]
    made = [processor.process(one) for one in media]
    ids = ids_of(processor, renderer, [one.modality for one in media])
    filled = processor.fill(ids, made)
    built = unpack(torch.from_numpy(joined(filled.features)), filled.input_ids)

    given: dict[str, list[Any]] = {}
    keys: dict[str, list[str]] = {}
    for one, item in zip(media, data, strict=True):
        given.setdefault(one.modality, []).append(item)
        keys.setdefault(one.modality, []).append(one.key)
    expected = renderer._process_multimodal(list(ids), given, None, options)
    assert filled.input_ids == built["prompt_token_ids"] == expected["prompt_token_ids"]
    assert built["mm_kwargs"] == expected["mm_kwargs"]
    assert built["mm_placeholders"] == expected["mm_placeholders"]
    assert built["mm_hashes"] == keys
    assert sum(one.tokens for one in made) == sum(length for _, length in filled.places)


def test_a_picture_is_processed_once(processor: MediaProcessor, renderer: Any) -> None:
    loads = []
    first = Medium("image", "once", lambda: loads.append(1) or picture(96, 64), {})
    made = [processor.process(first) for _ in range(3)]
    assert loads == [1] and made[0] is made[1] is made[2]
    # The same picture twice in a prompt, and in another prompt.
    for count in (2, 1):
        filled = processor.fill(ids_of(processor, renderer, ["image"] * count), made[:count])
        assert len(filled.places) == count


def test_options_load_nothing_from_the_checkpoint(processor: MediaProcessor, monkeypatch: pytest.MonkeyPatch) -> None:
    """vLLM would load another processor, with its tokenizer, for options that it has not seen."""

    def load(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr(ProcessorMixin, "from_pretrained", load)
    usual = processor.process(medium(picture(200, 200))).tokens
    assert processor.process(medium(picture(200, 200), {"max_pixels": 9000})).tokens < usual
    assert processor.process(medium(picture(200, 200))).tokens == usual


def test_the_memory_of_kept_pictures_is_bounded(folder: Path) -> None:
    item = load(folder).process(medium(picture(64, 64))).item
    size = sum(element.data.nbytes for element in item.values())
    processor = load(folder, instances=2, mm_processor_cache_gb=2 * 3.5 * size / 2**30)
    loads: list[str] = []

    def use(key: str) -> None:
        def data() -> Image.Image:
            loads.append(key)
            return picture(64, 64)

        processor.process(Medium("image", key, data, {}))

    for key in ("a", "b", "c", "a", "d", "a", "b"):
        use(key)
    # Three fit; b was used longest ago when d came.
    assert "".join(loads) == "abcdb"


def test_what_the_request_caused_names_its_field(processor: MediaProcessor) -> None:
    def refused(data: Any, options: dict[str, Any]) -> RequestError:
        with pytest.raises(RequestError) as error:
            processor.process(medium(data, options))
        assert error.value.kind == "invalid_request" and "data=" not in error.value.message
        return error.value

    narrow = refused(Image.new("RGB", (3000, 10)), {})
    assert narrow.param == "messages" and "aspect ratio" in narrow.message
    assert refused(Image.new("RGB", (3000, 10)), {"min_pixels": 3136}).param == "messages"
    wrong = refused(picture(64, 64), {"size": {"depth": 3}})
    assert wrong.param == "mm_processor_kwargs" and "size" in wrong.message


def test_our_own_faults_are_not_the_requests(processor: MediaProcessor) -> None:
    with pytest.raises(TypeError):
        processor.process(medium(object()))


def test_a_prompt_without_places_is_refused(processor: MediaProcessor) -> None:
    with pytest.raises(RequestError, match="no places for its images"):
        processor.fill([1, 2, 3], [processor.process(medium(picture(64, 64)))])


def test_limits_are_those_of_the_engines_options(processor: MediaProcessor, folder: Path) -> None:
    assert (processor.limit("image"), processor.limit("video")) == (4, 2)
    with pytest.raises(ValueError, match="unknown engine option 'dtipe'"):
        load(folder, dtipe="half")


def test_options_of_another_engine_are_ignored(folder: Path) -> None:
    values = {"model_path": str(folder), "max_model_len": "2048", "engine": "mine:Engine"}
    values["engine_options"] = json.dumps(ENGINE | {"token_rate": 50})
    loaded = MediaProcessor.load(ModelParameters("preprocessing", values))
    assert (loaded.limit("image"), loaded.limit("video")) == (4, 2)
