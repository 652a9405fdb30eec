# SPDX-License-Identifier: Apache-2.0
"""The Triton model `postprocessing`: each response of the engine becomes one of the answer."""

import json
from typing import Any

from tokenizers import Tokenizer

from common.checkpoint import Checkpoint
from common.errors import RequestError
from common.logs import about
from common.model_names import ENGINE, POSTPROCESSING, sibling
from common.response_batch import FORGET_BEFORE, TOKENS, Begin, TokenRow, decode_tokens
from common.sampling import ENGINE_PARAMETERS
from common.tokenizer import ChatTokenizer
from families.detection import chosen_styler
from families.parsers import AnswerFormat
from families.recognition import recognise
from postprocessing import engine
from postprocessing.answers import Answer, Answers
from postprocessing.streams import StreamKey
from postprocessing.tensors import (
    batch_response,
    beams,
    failure,
    new_logprobs,
    prompt_counts,
    prompt_outputs,
    rows,
    set_fields,
    write_delta,
)
from python_backend.api import InferenceRequest, InferenceResponse, pb_utils
from python_backend.config import ModelParameters
from python_backend.logs import model_logger
from python_backend.metrics import Published, Reporter
from python_backend.tensors import Inputs, error_response, string

log = model_logger("postprocessing", verbose=False)

STATISTICS = {"streams": "Answers in progress, and those not yet given up"}


class Postprocessor:
    """Turns the engine's responses into answers. One instance must get the responses of all streams, in order."""

    def __init__(
        self, tokenizer: Tokenizer, answer_format: AnswerFormat, end_ids: frozenset[int], model: str = POSTPROCESSING
    ) -> None:
        """Start with no answers. end_ids: ids that end an answer. model: the name of this Triton model."""
        self._tokenizer = tokenizer
        self._engine = sibling(model, ENGINE)
        self._answers = Answers(tokenizer, answer_format, end_ids)
        published = Published(model, "triton_chat_postprocessing", STATISTICS)
        self._reporter = Reporter(published, lambda: {"streams": len(self._answers)}, log)

    @classmethod
    def load(cls, parameters: ModelParameters) -> "Postprocessor":
        """Load the tokenizer and the family's answer format; raises ValueError for a wrong path or option."""
        checkpoint = Checkpoint.load(parameters.required("model_path"))
        tokenizer = ChatTokenizer.load(checkpoint.path, parameters.text("chat_template"))
        styler = chosen_styler(checkpoint, parameters)
        end_ids = frozenset((*checkpoint.end_ids, *styler.stop_ids(tokenizer)))
        answer_format = styler.answer_format(tokenizer)
        for warning in recognise(styler, tokenizer, answer_format).warnings:  # Here, as there is only one instance.
            log.warning(warning)
        return cls(tokenizer.backend, answer_format, end_ids, parameters.model)

    def close(self) -> None:
        """Stop publishing metrics."""
        self._reporter.close()

    def execute(self, requests: list[InferenceRequest]) -> list[InferenceResponse]:
        """One response per request; then engines whose answers met a stop string are stopped."""
        to_stop: list[StreamKey] = []
        responses = [self._respond(request, to_stop) for request in requests]
        for key in to_stop:
            try:
                engine.stop(self._engine, key)
            except Exception:
                # An engine that is gone needs no stop, and the answers of the whole batch are ready.
                log.exception("stopping a request failed", extra=about(key[0]))
        return responses

    def _respond(self, request: InferenceRequest, to_stop: list[StreamKey]) -> InferenceResponse:
        """One response; what is wrong with one request must not fail the others of its batch."""
        key: StreamKey = (request.request_id(), 0)
        try:
            inputs = Inputs(request)
            batch = inputs.array(TOKENS)
            if batch is not None:
                return batch_response([self._answer_row(row, to_stop) for row in decode_tokens(batch.tobytes())])
            stream_id = inputs.number("stream_id")
            key = (request.request_id(), stream_id or inputs.number("sequence_index") or 0)
            engine_error = inputs.string("engine_error")
            if engine_error is not None:
                self._forget(request)
                self._answers.end(key)
                return failure(engine_error)
            limit = inputs.number("request_output_len")
            if limit is not None:
                return self._announce(key, request, limit, inputs.number("end_id"))
            return self._answer(key, request, inputs, stream_id, to_stop)
        except RequestError as error:
            failed = error
        except Exception:
            log.exception("an answer failed", extra=about(request.request_id()))
            failed = RequestError("postprocessing failed on this request", kind="internal")
        self._answers.end(key)
        to_stop.append(key)
        return failure(failed.encode())

    def _answer(
        self, key: StreamKey, request: InferenceRequest, inputs: Inputs, stream_id: int | None, to_stop: list[StreamKey]
    ) -> InferenceResponse:
        answer = self._answers.get(key, request.parameters, inputs.number("reasoning_open"))
        ids, *further_ids = beams(inputs)
        finish = inputs.number("engine_finish_reason")
        # An engine without streams of its own does not report how an answer ended.
        if finish is None and stream_id is None:
            finish = answer.finish.feed(ids, inputs.number("last_token_time_ns"))
        delta = answer.stream.feed(
            ids,
            logprobs=new_logprobs(inputs, len(ids)),
            top_ids=rows(inputs, "top_log_probs_ids"),
            top_logprobs=rows(inputs, "top_log_probs"),
            engine_finish=finish,
        )
        further = [self._answers.whole_text(request.parameters, each, finish) for each in further_ids]
        tensors = write_delta(delta, further)
        if inputs.array("prompt_log_probs_ids") is not None:
            tensors += prompt_outputs(inputs, self._tokenizer, with_ids=_asks_for_ids(request))
        response = pb_utils.InferenceResponse(tensors)
        if finish is not None:
            self._answers.end(key)
        if delta.stop_engine:
            to_stop.append(key)
        return response

    def _answer_row(self, row: TokenRow, to_stop: list[StreamKey]) -> tuple[Any, ...]:
        """What one row of a batch adds, as AnswerRow; what is wrong with one must not fail the others."""
        key: StreamKey = (row.request_id, row.stream_id)
        try:
            if row.error is not None and not row.ids:
                self._answers.end(key)
                return row.request_id, row.number, "", {"error": row.error}
            answer = self._answers.find(key) if row.begin is None else self._begin_answer(key, row.begin)
            if answer is None:
                raise RequestError("the beginning of this answer is not known any more", kind="internal")
            delta = answer.stream.feed(row.ids, engine_finish=row.finish)
            more = set_fields(delta)
            if row.begin is not None:
                more |= prompt_counts(row.begin)
            if row.error is not None:
                more["error"] = row.error
            if row.finish is not None or row.error is not None:
                self._answers.end(key)
            if delta.stop_engine:
                to_stop.append(key)
            return row.request_id, row.number, delta.text, more or None, answer.stream.completion_tokens
        except RequestError as error:
            failed = error
        except Exception:
            log.exception("an answer failed", extra=about(row.request_id))
            failed = RequestError("postprocessing failed on this request", kind="internal")
        self._answers.end(key)
        if row.finish is None and row.error is None:
            to_stop.append(key)
        return row.request_id, row.number, "", {"error": failed.encode()}

    def _begin_answer(self, key: StreamKey, begin: Begin) -> Answer:
        return self._answers.get(key, lambda: begin.parameters, begin.reasoning_open)

    def _forget(self, request: InferenceRequest) -> None:
        """Forget the answers of a client that has died, if that is what the request is for."""
        parameters = json.loads(request.parameters() or "{}")
        if FORGET_BEFORE in parameters:
            self._answers.forget_client(str(parameters.get("owner")), float(parameters[FORGET_BEFORE]))

    def _announce(self, key: StreamKey, request: InferenceRequest, limit: int, end_id: int | None) -> InferenceResponse:
        """Prepare for the answer of an engine that does not report its end; it has no streams of its own either."""
        if key in self._answers:
            text = "an answer of this request id is under way: give each request an id of its own"
            return error_response(RequestError(text))
        self._answers.announce(key, request.parameters, limit, end_id)
        return pb_utils.InferenceResponse([string("text_output", "")])


def _asks_for_ids(request: InferenceRequest) -> bool:
    """Whether the ids of the prompt are to be sent: the engine sends them beside the log-probabilities too."""
    name = "prompt_token_ids"
    parameters = json.loads(request.parameters() or "{}")
    return name in parameters and bool(ENGINE_PARAMETERS[name].read(parameters[name], name))
