# SPDX-License-Identifier: Apache-2.0
"""Run a checkpoint's own processor of pictures and videos, as vLLM has it, outside the engine's process.

vLLM runs it on one thread of the process that also sends the tokens. Here each process of `preprocessing` has one, and
the engine gets finished features. The module is for `preprocessing`, and imports vLLM: seconds and 1 GB.
"""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch
from cachetools import LRUCache
from PIL import Image
from vllm.config import ModelConfig
from vllm.model_executor.model_loader import get_model_cls
from vllm.multimodal import MULTIMODAL_REGISTRY
from vllm.multimodal.cache import BaseMultiModalProcessorCache
from vllm.multimodal.processing import InputProcessingContext, ProcessorInputs, TimingContext

from common.checks import shorten
from common.errors import RequestError
from engines.options import read_options
from engines.vllm.config import processor_config
from engines.vllm.features import pack
from engines.vllm.frames import loader_of
from engines.vllm.quick_reshape import QuickReshape
from engines.vllm.versions import CACHE_IN_INPUTS
from python_backend.config import ModelParameters

Modality = Literal["image", "video"]
NOUNS: Mapping[Modality, str] = {"image": "an image", "video": "a video"}
# Of all processes together, in GiB.
CACHE_GB = 1.0
_GIB = 2**30
# Pixels. No processor makes a picture's side longer by itself.
_LONGEST_SIDE = 4096
# What vLLM makes of the processor's own errors begins with this, and has the pixels in its message.
_PROCESSOR_FAILED = "Failed to apply"


@dataclass(frozen=True, slots=True)
class Medium:
    """One picture or video of a request.

    key: equal only if the file and all that its features depend on are equal. load: decodes it, to a PIL image, or to
    the frames of a video (uint8 [frames, height, width, 3]) with their metadata. options: of the processor.
    """

    modality: Modality
    key: str
    load: Callable[[], Any]
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Features:
    """What the processor made of a picture or a video. tokens: those that it takes in a prompt."""

    modality: Modality
    key: str
    item: Any
    updates: Any
    tokens: int


@dataclass(frozen=True, slots=True)
class Filled:
    """A prompt with the tokens of its media. features: bytes in pieces, see features.py. places: (start, length)."""

    input_ids: list[int]
    features: list[memoryview]
    places: list[tuple[int, int]]


class MediaProcessor:
    """The processor of one checkpoint, and the features that it made last. Not safe to use from several threads."""

    def __init__(self, config: ModelConfig, cache_bytes: int) -> None:
        """Create the processor. cache_bytes: of the features that are kept for later requests."""
        self._processor = MULTIMODAL_REGISTRY.create_processor(config)
        context = self._processor.info.ctx
        self._processor.info.ctx = _Context(context.model_config, context.tokenizer)
        self._model: Any = get_model_cls(config)
        self._cache: LRUCache[str, Features] = LRUCache(cache_bytes, getsizeof=_features_size)
        self.frames_at_rate = loader_of(config)

    @classmethod
    def load(cls, parameters: ModelParameters) -> "MediaProcessor":
        """Load the processor with the engine's options, so that its features are those that the engine expects.

        parameters: of `preprocessing`, whose processes share the memory of the option mm_processor_cache_gb.
        Raises ValueError for a wrong option, or if vLLM has no processor for the checkpoint.
        """
        # There are processes for half of the cores; more threads would only disturb the others.
        torch.set_num_threads(1)
        names = ("model_path", "max_model_len", "engine", "engine_options")
        values = {name: parameters.values[name] for name in names if name in parameters.values}
        options = read_options(ModelParameters(parameters.model, {"engine": "vllm", **values}))
        config = processor_config(options)
        if not config.is_multimodal_model:
            raise ValueError(f"vLLM has no processor of pictures for {', '.join(config.architectures)}")
        total = float(options.passed.get("mm_processor_cache_gb", CACHE_GB))
        loaded = cls(config, int(total * _GIB) // parameters.instances)
        loaded.warm_up()
        return loaded

    def warm_up(self) -> None:
        """Process a small picture, as the first one takes seconds."""
        with suppress(Exception):  # Some processors do not take what is so small.
            self._run(Medium("image", "", lambda: None, {}), Image.new("RGB", (64, 64)), {})

    def limit(self, modality: Modality) -> int:
        """The number of pictures or videos that a request may have; 0 if the model takes none."""
        return int(self._processor.info.allowed_mm_limits.get(modality, 0))

    def sizes_by_area(self) -> bool:
        """Whether the edges of the processor's `size` are numbers of pixels, not sides."""
        processor = getattr(self._processor.info.get_hf_processor(), "image_processor", None)
        size: dict[str, Any] = {}
        with suppress(TypeError, ValueError):  # It can also be a number.
            size = dict(getattr(processor, "size", None) or {})
        return any((size.get(edge) or 0) > _LONGEST_SIDE for edge in ("shortest_edge", "longest_edge"))

    def placeholder(self, modality: Modality, number: int) -> str:
        """The text by which a prompt places its picture or video of that number, counted from 1."""
        with suppress(Exception):  # Not every model says it.
            text: str | None = self._model.get_placeholder_str(modality, number)
            if text:
                return text
        return self._dummy_text(modality)

    def process(self, medium: Medium) -> Features:
        """The features of one picture or video, made now or for an earlier request.

        Raises RequestError if the picture or its options are the cause of a failure.
        """
        found = self._cache.get(medium.key)
        if found is None:
            found = self._process(medium)
            with suppress(ValueError):  # Larger than the whole cache.
                self._cache[medium.key] = found
        return found

    def fill(self, input_ids: Sequence[int], media: Sequence[Features]) -> Filled:
        """Put the tokens of media into a prompt that has a placeholder for each.

        Raises RequestError if it has not.
        """
        keys: dict[str, list[str]] = {}
        for one in media:
            keys.setdefault(one.modality, []).append(one.key)
        data = {modality: [None] * len(own) for modality, own in keys.items()}
        items = _RequestItems({one.key: (one.item, one.updates) for one in media})
        try:
            filled = self._apply(list(input_ids), data, keys, {}, items)
        except (RuntimeError, AssertionError) as error:  # vLLM's, for a placeholder that it does not find.
            raise RequestError("the prompt has no places for its images", param="messages") from error
        places = [(place.offset, place.length) for own in filled["mm_placeholders"].values() for place in own]
        return Filled(filled["prompt_token_ids"], pack(filled), places)

    def _process(self, medium: Medium) -> Features:
        data = medium.load()
        try:
            return self._run(medium, data, medium.options)
        except Exception as error:
            cause = (str(error).startswith(_PROCESSOR_FAILED) and error.__cause__) or error
            reason = shorten(str(cause), 200)
            if medium.options and self._works(medium, data):
                raise RequestError(f"mm_processor_kwargs: {reason}", param="mm_processor_kwargs") from cause
            # Processors refuse with it what they cannot take, such as a very narrow picture.
            if not isinstance(cause, ValueError):
                raise cause from None  # Without vLLM's message, which has the picture in it.
            problem = f"messages: the model's processor refuses {NOUNS[medium.modality]}: {reason}"
            raise RequestError(problem, param="messages") from cause

    def _works(self, medium: Medium, data: Any) -> bool:
        try:
            self._run(medium, data, {})
        except Exception:
            return False
        return True

    def _run(self, medium: Medium, data: Any, options: Mapping[str, Any]) -> Features:
        """Process one picture or video alone, as its features must not depend on its neighbours in a prompt."""
        items = _RequestItems({})
        modality, key = medium.modality, medium.key
        made = self._apply(self._dummy_ids(modality), {modality: [data]}, {modality: [key]}, options, items)
        item, updates = items.items[key]
        tokens = sum(place.length for place in made["mm_placeholders"][modality])
        return Features(modality, key, item, updates, tokens)

    def _apply(
        self,
        prompt: list[int],
        data: Mapping[str, list[Any]],
        keys: Mapping[str, list[str]],
        options: Mapping[str, Any],
        items: "_RequestItems",
    ) -> Any:
        inputs = _Inputs(
            prompt,
            self._processor.info.parse_mm_data(data, validate=False),
            mm_uuid_items=dict(keys),
            hf_processor_mm_kwargs=options,
        )
        holder: Any = inputs if CACHE_IN_INPUTS else self._processor
        holder.cache = items
        with QuickReshape():
            return self._processor.apply(inputs, TimingContext(enabled=False))

    @cache  # noqa: B019 # a process has one processor
    def _dummy_text(self, modality: Modality) -> str:
        """A text that places one picture or video, and nothing else."""
        return self._processor.dummy_inputs.get_dummy_text({modality: 1})

    @cache  # noqa: B019
    def _dummy_ids(self, modality: Modality) -> list[int]:
        tokenizer = self._processor.info.get_tokenizer()
        return list(tokenizer.encode(self._dummy_text(modality), add_special_tokens=False))


class _Context(InputProcessingContext):
    """Makes the processor for a request's options from the loaded one.

    vLLM loads another from the checkpoint, with its tokenizer, for each combination of options that it has not seen:
    2.5 s of a core with Qwen2.5-VL, which a client could ask for with every picture.
    """

    def get_hf_processor(self, typ: Any = None, /, **kwargs: Any) -> Any:
        load: Any = super().get_hf_processor
        loaded = load(typ)
        options = {name: value for name, value in kwargs.items() if not name.endswith("_kwargs")}
        if not options:
            return loaded
        if any(name in inspect.signature(type(loaded)).parameters for name in options):
            # Not the options of its parts, but its own.
            return load(typ, **kwargs)
        changed = copy.copy(loaded)
        for name in ("image_processor", "video_processor"):
            part = getattr(loaded, name, None)
            if part is not None:
                setattr(changed, name, type(part).from_dict(part.to_dict(), **options))
        return changed


class _Inputs(ProcessorInputs):
    """The inputs of a processor, whose items have the keys that were given."""

    def get_mm_hashes(self, *args: Any, **kwargs: Any) -> Any:
        # vLLM would hash them again with the options, which are in our keys.
        return {modality: list(keys) for modality, keys in (self.mm_uuid_items or {}).items()}


class _RequestItems(BaseMultiModalProcessorCache):
    """The processed items of one request, as vLLM's processor looks them up: key -> (item, prompt updates)."""

    def __init__(self, items: dict[str, Any]) -> None:
        self.items = items

    def is_cached_item(self, mm_hash: str) -> bool:
        return mm_hash in self.items

    def get_and_update_item(self, mm_item: Any, mm_hash: str) -> Any:
        return self.items.setdefault(mm_hash, mm_item)

    def touch_sender_cache_item(self, mm_hash: str) -> None:
        pass

    def clear_cache(self) -> None:
        self.items.clear()

    def make_stats(self, *, delta: bool = False) -> Any:
        raise NotImplementedError


def _features_size(features: Features) -> int:
    return sum(_size(element.data) for element in features.item.values())


def _size(data: Any) -> int:
    """The bytes of a tensor, or of the tensors in nested lists."""
    if isinstance(data, torch.Tensor):
        return data.nbytes
    return sum(map(_size, data)) if isinstance(data, list | tuple) else 0
