# SPDX-License-Identifier: Apache-2.0
"""Triton model `postprocessing`: the engine's tensors in, one `AnswerStream` per stream, text deltas out."""

import json
import locale
from dataclasses import dataclass
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
from postprocessing.answer_stream import AnswerDelta, AnswerStream  # noqa: E402
from postprocessing.finish_reason import EndFinder  # noqa: E402
from postprocessing.logprobs import prompt_logprob_entries, token_table  # noqa: E402
from postprocessing.streams import StreamKey, Streams  # noqa: E402
from python_backend.config import ModelParameters  # noqa: E402
from python_backend.metrics import Published, Reporter  # noqa: E402
from python_backend.tensors import Inputs, error_response, ints, string  # noqa: E402

log = model_logger("postprocessing", verbose=False)


STATISTICS = {"streams": "Answers in progress, and those not yet given up"}


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer in progress. end: for an engine that does not tell it."""

    stream: AnswerStream
    end: EndFinder


class TritonPythonModel:
    """Triton's interface. A single instance sees every stream's responses in their order."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer and the family's answer format; raises ValueError for a wrong path or option."""
        parameters = ModelParameters.from_config(args["model_config"])
        checkpoint = Checkpoint.load(parameters.required("model_path"))
        tokenizer = ChatTokenizer.load(checkpoint.path)
        styler = find_styler(checkpoint, parameters.text("styler"), parameters.given("enable_thinking"))
        self._format = styler.answer_format(tokenizer)
        self._tokenizer = tokenizer.backend
        self._end_ids = frozenset((*checkpoint.end_ids, *styler.stop_ids(tokenizer)))
        self._streams: Streams[Answer] = Streams()
        published = Published("postprocessing", "triton_chat_postprocessing", STATISTICS)
        self._reporter = Reporter(published, lambda: {"streams": len(self._streams)})

    def finalize(self) -> None:
        """Publish nothing more."""
        self._reporter.close()

    def execute(self, requests: list[Any]) -> list[Any]:
        """One response per request; engines whose answers met a stop string are told to stop afterwards."""
        to_stop: list[StreamKey] = []
        responses = [self._respond(request, to_stop) for request in requests]
        for key in to_stop:
            _stop_engine(key)
        return responses

    def _respond(self, request: Any, to_stop: list[StreamKey]) -> Any:
        inputs = Inputs(request)
        stream_id = inputs.number("stream_id")
        key = (request.request_id(), stream_id or inputs.number("sequence_index") or 0)
        engine_error = inputs.string("engine_error")
        if engine_error is not None:
            self._streams.end(key)
            return _failure(engine_error)
        try:
            limit = inputs.number("request_output_len")
            if limit is not None:
                return self._expect(key, request, limit, inputs.number("end_id"))
            answer = self._streams.get(key, lambda: self._open(request, None, self._end_ids))
            beams = _beams(inputs)
            finish = inputs.number("engine_finish_reason")
            if finish is None and stream_id is None:
                finish = answer.end.feed(beams[0], inputs.number("last_token_time_ns"))
            delta = answer.stream.feed(
                beams[0],
                logprobs=_newest(_rows(inputs, "output_log_probs"), len(beams[0])),
                top_ids=_rows(inputs, "top_log_probs_ids"),
                top_logprobs=_rows(inputs, "top_log_probs"),
                engine_finish=finish,
            )
        except Exception:
            log.exception("an answer failed", extra=about(request.request_id()))
            self._streams.end(key)
            to_stop.append(key)
            return _failure(RequestError("postprocessing failed on this request", kind="internal").encode())
        if finish is not None:
            self._streams.end(key)
        if delta.stop_engine:
            to_stop.append(key)
        others = [self._whole_text(request, ids, finish) for ids in beams[1:]]
        return pb_utils.InferenceResponse(_write(delta, others) + self._prompt_logprobs(inputs))

    def _expect(self, key: StreamKey, request: Any, limit: int, end_id: int | None) -> Any:
        """Prepare for an answer whose engine will not say how it ends; it has no streams of its own either."""
        if key in self._streams:
            text = "an answer of this request id is under way: give each request an id of its own"
            return error_response(RequestError(text))
        end_ids = self._end_ids if end_id is None or end_id >= 0 else frozenset[int]()
        self._streams.get(key, lambda: self._open(request, limit, end_ids))
        return pb_utils.InferenceResponse([string("text_output", "")])

    def _open(self, request: Any, limit: int | None, end_ids: frozenset[int]) -> Answer:
        options = AnswerOptions.from_parameters(json.loads(request.parameters() or "{}"))
        stream = AnswerStream(self._tokenizer, self._format, options, self._end_ids)
        return Answer(stream, EndFinder(limit, end_ids))

    def _whole_text(self, request: Any, ids: list[int], finish: int | None) -> str:
        """The text of a further beam; an engine searches with several only where it does not stream."""
        return self._open(request, None, self._end_ids).stream.feed(ids, engine_finish=finish).text

    def _prompt_logprobs(self, inputs: Inputs) -> list[Any]:
        ids, logprobs = _rows(inputs, "prompt_log_probs_ids"), _rows(inputs, "prompt_log_probs")
        if ids is None or logprobs is None:
            return []
        # Column 0 is the prompt's own token; the first row has no log-probability, for nothing stands before it.
        entries = prompt_logprob_entries(
            token_table(self._tokenizer),
            [row[0] for row in ids],
            [row[0] for row in logprobs[1:]],
            [row[1:] for row in ids[1:]],
            [row[1:] for row in logprobs[1:]],
        )
        return [string("prompt_logprobs", json.dumps(entries))]


def _beams(inputs: Inputs) -> list[list[int]]:
    """The new ids of each beam; shorter beams are padded to the length of the longest."""
    ids, lengths = inputs.array("output_ids"), inputs.array("sequence_length")
    if len(ids) < 2 or lengths is None:
        return [ids.flatten().tolist()]
    return [beam[:length].tolist() for beam, length in zip(ids, lengths.tolist(), strict=True)]


def _rows(inputs: Inputs, name: str) -> Any:
    array = inputs.array(name)
    return None if array is None else array.tolist()


def _newest(logprobs: list[list[float]] | None, count: int) -> list[float] | None:
    """The best beam's last ones: the C++ backend sends those of all tokens so far with each new token."""
    return None if logprobs is None else logprobs[0][max(0, len(logprobs[0]) - count) :]


def _failure(error: str) -> Any:
    """A failed answer as data: an error response in the middle of an ensemble's stream leaks the request."""
    return pb_utils.InferenceResponse([string("text_output", ""), string("error", error)])


def _write(delta: AnswerDelta, other_beams: list[str]) -> list[Any]:
    texts = [text.encode(errors="replace") for text in (delta.text, *other_beams)]
    tensors = [pb_utils.Tensor("text_output", np.array([texts], dtype=object))]
    if delta.reasoning:
        tensors.append(string("reasoning_output", delta.reasoning))
    if delta.tool_calls:
        tensors.append(string("tool_calls", json.dumps(delta.tool_calls, ensure_ascii=False)))
    if delta.logprobs:
        tensors.append(string("logprobs", json.dumps(delta.logprobs)))
    if delta.finish_reason is not None:
        tensors += [
            string("finish_reason", delta.finish_reason),
            ints("completion_tokens", [delta.completion_tokens]),
            ints("reasoning_tokens", [delta.reasoning_tokens]),
        ]
    return tensors


def _stop_engine(key: StreamKey) -> None:
    """Tell the engine that this stream's answer is complete: a request with the same id and `stop`."""
    request_id, stream_id = key
    one = np.ones((1, 1), np.int32)
    flags = np.ones((1, 1), bool)
    request = pb_utils.InferenceRequest(
        model_name="tensorrt_llm",
        request_id=request_id,
        requested_output_names=["output_ids", "sequence_length"],
        inputs=[
            pb_utils.Tensor("input_lengths", one),
            pb_utils.Tensor("request_output_len", one),
            pb_utils.Tensor("stop", flags),
            pb_utils.Tensor("streaming", flags),
        ],
        parameters={"stream_id": stream_id} if stream_id else {},
    )
    for response in request.exec(decoupled=True):
        if response.has_error():
            log.warning("stopping a request failed: %s", response.error().message(), extra=about(request_id))
