# SPDX-License-Identifier: Apache-2.0
"""Triton model `preprocessing`: tensors in, `PromptBuilder`, the engine's tensors out."""

import json
import locale
from typing import Any

# The stub leaves the C locale, in which open() reads ASCII; tokenizer files are UTF-8.
locale.setlocale(locale.LC_ALL, "C.UTF-8")

import numpy as np  # noqa: E402
import triton_python_backend_utils as pb_utils  # noqa: E402

from common.answer_options import AnswerOptions  # noqa: E402
from common.checkpoint import Checkpoint  # noqa: E402
from common.errors import RequestError  # noqa: E402
from common.logs import about, model_logger  # noqa: E402
from common.tokenizer import ChatTokenizer  # noqa: E402
from families.detection import find_styler  # noqa: E402
from preprocessing.engine_traits import engine_traits  # noqa: E402
from preprocessing.images.decode import ImageLimits  # noqa: E402
from preprocessing.images.family import MediaOptions  # noqa: E402
from preprocessing.images.registry import find_images  # noqa: E402
from preprocessing.prompt import EngineInput, PromptBuilder, PromptRequest  # noqa: E402
from python_backend import watchdog as guardian  # noqa: E402
from python_backend.config import ModelParameters  # noqa: E402
from python_backend.tensors import Inputs, error_response, floats, ints, string  # noqa: E402

log = model_logger("preprocessing", verbose=False)

# The output of pictures for an engine with a vision tower of its own.
ENGINE_IMAGES = "engine_images"


class TritonPythonModel:
    """Triton's interface."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the checkpoint's tokenizer and styler; raises ValueError for a wrong path or option."""
        guardian.start()
        parameters = ModelParameters.from_config(args["model_config"])
        checkpoint = Checkpoint.load(parameters.required("model_path"))
        styler = find_styler(checkpoint, parameters.text("styler"), parameters.given("enable_thinking"))
        tokenizer = ChatTokenizer.load(checkpoint.path)
        guided = bool(parameters.boolean("guided_decoding"))
        self._engine = engine_traits(parameters.text("engine"), guided_decoding=guided)
        self._vocab_size = checkpoint.vocab_size
        images = find_images(checkpoint, tokenizer, _media_options(parameters))
        self._builder = PromptBuilder(checkpoint, tokenizer, styler, parameters.integer("max_model_len"), images)

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request, an error response where its input is wrong."""
        return [self._respond(request) for request in requests]

    def _respond(self, request: Any) -> Any:
        try:
            # Wrong options of the answer are found here, before the engine has spent anything on the request.
            parameters = json.loads(request.parameters() or "{}")
            AnswerOptions.from_parameters(parameters)
            inputs = Inputs(request)
            prompt = self._builder.build(_read(inputs))
            pixels = self._pixels(prompt)
            self._engine.check(prompt.guide_type, engine_images=any(each.name() == ENGINE_IMAGES for each in pixels))
            timing = self._timing(inputs)
            # Who asks for the ids alone wants no answer.
            if not self._engine.reports_finish and "request_output_len" in request.requested_output_names():
                _announce(request.request_id(), prompt, parameters)
            return pb_utils.InferenceResponse([*_write(prompt, self._vocab_size), *pixels, *timing])
        except RequestError as error:
            return error_response(error)
        except Exception:
            log.exception("a prompt failed", extra=about(request.request_id()))
            return error_response(RequestError("preprocessing failed on this request", kind="internal"))

    def _pixels(self, prompt: EngineInput) -> list[Any]:
        """The pictures' tensors, under the name that leads to whoever sees for this family."""
        if not prompt.pictures or self._builder.images is None:
            return []
        pixels = np.concatenate([picture.pixels for picture in prompt.pictures])
        return [
            pb_utils.Tensor(self._builder.images.tensor, pixels[np.newaxis]),
            ints("prompt_table_extra_ids", prompt.extra_ids, np.uint64),
        ]

    def _timing(self, inputs: Inputs) -> list[Any]:
        """Asked for where the client does, and where it alone tells the end of an answer."""
        asked = inputs.array("return_perf_metrics")
        if asked is None and self._engine.reports_finish:
            return []
        wanted = not self._engine.reports_finish or bool(asked.flatten()[0])
        return [pb_utils.Tensor("out_return_perf_metrics", np.array([[wanted]]))]


def _announce(request_id: str, prompt: EngineInput, parameters: dict[str, Any]) -> None:
    """Tell postprocessing what ends the answer: a step of an ensemble takes no tensor that comes once beside a stream.

    Raises RequestError where an answer of the same id is still under way, as their tokens could not be told apart.
    """
    announcement = pb_utils.InferenceRequest(
        model_name="postprocessing",
        request_id=request_id,
        requested_output_names=["text_output"],
        inputs=[
            pb_utils.Tensor("output_ids", np.zeros((1, 1, 0), np.int32)),
            ints("request_output_len", [prompt.request_output_len]),
            ints("end_id", [prompt.end_id]),
        ],
        parameters={name: value for name, value in parameters.items() if isinstance(value, str | int | bool)},
    )
    response = announcement.exec()
    if response.has_error():
        text = response.error().message()
        raise RequestError.decode(text) or RequestError("postprocessing cannot take an answer now", kind="unavailable")


def _media_options(parameters: ModelParameters) -> MediaOptions:
    names = ("max_images", "max_tiles", "video_frames", "max_tiles_per_image")
    numbers = {name: parameters.integer(name) for name in names}
    return MediaOptions(
        limits=ImageLimits(**{"max_pixels": pixels} if (pixels := parameters.integer("image_max_pixels")) else {}),
        **{name: number for name, number in numbers.items() if number is not None},
        **parameters.given("pan_and_scan"),
    )


def _read(inputs: Inputs) -> PromptRequest:
    words, weights = inputs.strings("embedding_bias_words") or (), inputs.floats("embedding_bias_weights") or ()
    ids, values = inputs.ints("logit_bias_ids") or (), inputs.floats("logit_bias_values") or ()
    if len(words) != len(weights):
        raise RequestError("embedding_bias_words and embedding_bias_weights differ in length")
    if len(ids) != len(values):
        raise RequestError("logit_bias_ids and logit_bias_values differ in length", param="logit_bias")
    return PromptRequest(
        text=inputs.string("text_input"),
        messages=inputs.string("messages"),
        input_ids=inputs.ints("prompt_ids"),
        images=inputs.blobs("images") or (),
        max_tokens=inputs.number("max_tokens"),
        stop_words=inputs.strings("stop_words") or (),
        bad_words=inputs.strings("bad_words") or (),
        stop_token_ids=inputs.ints("stop_token_ids") or (),
        end_id=inputs.number("end_id"),
        pad_id=inputs.number("pad_id"),
        bias_words=tuple(zip(words, weights, strict=True)),
        logit_bias=dict(zip(ids, values, strict=True)),
        guide_type=inputs.string("guided_decoding_guide_type"),
        guide=inputs.string("guided_decoding_guide"),
    )


def _write(prompt: EngineInput, vocab_size: int) -> list[Any]:
    tensors = [
        ints("input_ids", prompt.input_ids),
        ints("input_lengths", [len(prompt.input_ids)]),
        ints("request_output_len", [prompt.request_output_len]),
        ints("out_end_id", [prompt.end_id]),
        ints("out_pad_id", [prompt.pad_id]),
    ]
    if prompt.stop_words:
        tensors.append(_words("stop_words_list", prompt.stop_words))
    if prompt.bad_words:
        tensors.append(_words("bad_words_list", prompt.bad_words))
    if prompt.embedding_bias:
        bias = np.zeros(vocab_size, np.float32)
        bias[list(prompt.embedding_bias)] = list(prompt.embedding_bias.values())
        tensors.append(floats("embedding_bias", bias))
    if prompt.guide_type is not None:
        tensors += [string("out_guide_type", prompt.guide_type), string("out_guide", prompt.guide or "")]
    return tensors


def _words(name: str, words: list[list[int]]) -> Any:
    """[2, n]: the words' ids one after another, and below them the offset where each word ends, padded by -1."""
    ids = [token for word in words for token in word]
    ends = np.cumsum([len(word) for word in words]).tolist()
    return ints(name, [ids, ends + [-1] * (len(ids) - len(ends))])
