# SPDX-License-Identifier: Apache-2.0
"""The Triton model `preprocessing`: each request becomes the engine's input tensors."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from common.adapters import ADAPTERS, SEND_WEIGHTS, to_json
from common.answer_options import AnswerOptions
from common.checkpoint import Checkpoint
from common.errors import RequestError
from common.fast_tokenizer import AUTO
from common.logs import about
from common.model_names import POSTPROCESSING, PREPROCESSING, sibling
from common.sampling import ENGINE_PARAMETERS, INT32_MAX, EngineParameter, Limits
from common.shared_bytes import SharedBytes
from common.tokenizer import ChatTokenizer
from families.detection import chosen_styler
from families.parsers import starts_in_reasoning
from preprocessing.adapters import BackendAdapters
from preprocessing.announcement import announce
from preprocessing.engine_traits import EngineTraits, engine_traits
from preprocessing.images.decode import ImageLimits
from preprocessing.images.family import MAX_VIDEO_FRAMES, MediaOptions
from preprocessing.images.registry import find_images
from preprocessing.prompt import PromptBuilder
from preprocessing.tensors import (
    HANDLE,
    read_lora_task_id,
    read_options,
    read_request,
    read_return_perf_metrics,
    write_adapter,
    write_adapters,
    write_features,
    write_handle,
    write_pictures,
    write_prompt,
    write_reasoning_open,
    write_return_perf_metrics,
    write_token_strs,
)
from python_backend.api import InferenceRequest, InferenceResponse, Tensor, pb_utils
from python_backend.config import ModelParameters
from python_backend.logs import model_logger
from python_backend.tensors import Inputs, error_response

log = model_logger("preprocessing", verbose=False)

# Of one request. `postprocessing` writes them in one piece and the frontend reads them so, and meanwhile each serves
# nobody else, for some tenths of a second.
MAX_PROMPT_LOGPROBS = 131_072
# How many choices of the request have this prompt's log-probabilities, or those of other prompts.
_CHOICES = EngineParameter("", int, "n", Limits(1, INT32_MAX))
# The output of pixels for an engine that runs the vision part itself.
ENGINE_IMAGES = "engine_images"
# Features of less take Triton's way, which costs less than to map memory.
SHARED_FROM_BYTES = 2**18
# The fields of MediaOptions that are parameters of the config under their own names, but for the limit of pixels.
_MEDIA_NUMBERS = (
    *("max_images", "max_tiles", "max_tiles_per_image"),
    *("video_frames", "max_video_frames", "max_resized_pixels"),
)


class Preprocessor:
    """Turns requests into the engine's inputs.

    engine: what the engine behind the server supports. model: the name of this Triton model. adapters: those of
    NVIDIA's C++ backend; other engines load their own.
    """

    def __init__(
        self,
        builder: PromptBuilder,
        engine: EngineTraits,
        model: str = PREPROCESSING,
        adapters: BackendAdapters | None = None,
    ) -> None:
        self._builder = builder
        self._postprocessing = sibling(model, POSTPROCESSING)
        self._engine = engine
        self._shared = SharedBytes()
        self._adapters = adapters or BackendAdapters((), builder.checkpoint.path)

    @classmethod
    def load(cls, parameters: ModelParameters) -> "Preprocessor":
        """Load the checkpoint's tokenizer and styler; raises ValueError for a wrong path or option."""
        checkpoint = Checkpoint.load(parameters.required("model_path"))
        choice = parameters.text("tokenizer_backend") or AUTO
        tokenizer = ChatTokenizer.load(checkpoint.path, parameters.text("chat_template"), choice)
        styler = chosen_styler(checkpoint, parameters)
        guided_decoding = bool(parameters.boolean("guided_decoding"))
        engine = engine_traits(parameters.text("engine"), guided_decoding=guided_decoding)
        images = find_images(checkpoint, tokenizer, media_options(parameters), parameters)
        builder = PromptBuilder(
            checkpoint,
            tokenizer,
            styler,
            parameters.integer("max_model_len"),
            images,
            structural_tags="structural_tag" in engine.guides,
            call_styles=engine.call_styles,
            trust_chat_template=bool(parameters.boolean("trust_request_chat_template")),
        )
        adapters = BackendAdapters.read(parameters.text("lora_modules"), checkpoint.path)
        return cls(builder, engine, parameters.model, adapters)

    def execute(self, requests: list[InferenceRequest]) -> list[InferenceResponse]:
        """One response per request, an error response if its input is wrong."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: InferenceRequest) -> InferenceResponse:
        try:
            return pb_utils.InferenceResponse(self._outputs(request))
        except RequestError as error:
            return error_response(error)
        except Exception:
            log.exception("a prompt failed", extra=about(request.request_id()))
            return error_response(RequestError("preprocessing failed on this request", kind="internal"))

    def _outputs(self, request: InferenceRequest) -> list[Tensor]:
        if set(request.requested_output_names()) == {ADAPTERS}:
            return [write_adapters(to_json(self._adapters.all()))]
        # Wrong options of the answer are found here, before the engine has spent anything on the request.
        parameters: dict[str, Any] = json.loads(request.parameters() or "{}")
        options = AnswerOptions.from_parameters(parameters)
        inputs = Inputs(request)
        asked = replace(read_request(inputs), **read_options(parameters))
        prompt = self._builder.build(asked)
        _check_prompt_logprobs(len(prompt.input_ids), parameters)
        images_tensor = self._builder.images.tensor if self._builder.images and prompt.pictures else None
        self._engine.check(prompt.guide_type, engine_images=images_tensor == ENGINE_IMAGES)
        outputs = write_prompt(prompt, self._builder.checkpoint.vocab_size)
        if images_tensor is not None:
            outputs += write_pictures(images_tensor, prompt.pictures, prompt.extra_ids or [])
        if prompt.features is not None:
            outputs += self._features(prompt.features, shared=HANDLE in request.requested_output_names())
        if parameters.get("return_token_strs"):
            outputs.append(write_token_strs(self._builder.tokenizer.token_strs(prompt.input_ids)))
        if parameters.get(SEND_WEIGHTS) and (lora_task_id := read_lora_task_id(inputs)) is not None:
            outputs += write_adapter(*self._adapters.weights(lora_task_id))
        outputs += self._timing(inputs)
        expected = starts_in_reasoning(self._builder.answer_format, options)
        if options.chat and prompt.reasoning_open not in (None, expected):
            if self._engine.reports_finish:
                outputs.append(write_reasoning_open(prompt.reasoning_open))
            else:  # Such an engine passes nothing on; the announcement does.
                parameters["reasoning_open"] = prompt.reasoning_open
        # A request for the ids only gets no answer.
        if not self._engine.reports_finish and "request_output_len" in request.requested_output_names():
            announce(self._postprocessing, request.request_id(), prompt, parameters)
        return outputs

    def _features(self, features: Sequence[memoryview], *, shared: bool) -> list[Tensor]:
        """The bytes of features, or where they are. shared: whether the receiver can map this process's memory."""
        if shared and sum(piece.nbytes for piece in features) >= SHARED_FROM_BYTES:
            handle = self._shared.share(features)
            if handle is not None:
                return [write_handle(handle), *([] if self._shared.is_trusted() else [write_features(features)])]
        return [write_features(features)]

    def _timing(self, inputs: Inputs) -> list[Tensor]:
        """Timing is requested if the client wants it, or if only timing shows the end of an answer."""
        requested = read_return_perf_metrics(inputs)
        if self._engine.reports_finish:
            return [] if requested is None else [write_return_perf_metrics(requested)]
        return [write_return_perf_metrics(True)]


def _check_prompt_logprobs(length: int, parameters: Mapping[str, Any]) -> None:
    """Raise RequestError if an answer would have too many log-probabilities. length: of the prompt."""
    name, of_choices = "prompt_logprobs", "prompt_logprobs_choices"
    if name not in parameters:
        return
    alternatives = ENGINE_PARAMETERS[name].read(parameters[name], name)
    choices = _CHOICES.read(parameters.get(of_choices, 1), of_choices)
    if choices * length * (1 + alternatives) > MAX_PROMPT_LOGPROBS:
        times = f", {choices} times," if choices > 1 else ""
        raise RequestError(
            f"the log-probabilities of {length} tokens with {alternatives} alternatives{times} are more than "
            f"{MAX_PROMPT_LOGPROBS}, the most that a request may have",
            param=name,
        )


def media_options(parameters: ModelParameters) -> MediaOptions:
    """The image options in a config; MediaOptions has the defaults of those that are not set."""
    max_pixels = parameters.integer("image_max_pixels")
    options: dict[str, Any] = {"limits": ImageLimits(max_pixels=max_pixels) if max_pixels else ImageLimits()}
    for name in _MEDIA_NUMBERS:
        number = parameters.integer(name)
        if number is not None:
            options[name] = number
    options |= parameters.given("pan_and_scan")
    frames = options.get("video_frames", 0)
    if frames > options.setdefault("max_video_frames", max(MAX_VIDEO_FRAMES, frames)):
        raise ValueError(f"video_frames {frames} is above max_video_frames {options['max_video_frames']}")
    return MediaOptions(**options)
