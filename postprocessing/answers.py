# SPDX-License-Identifier: Apache-2.0
"""The answers in progress of one checkpoint."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from tokenizers import Tokenizer

from common.answer_options import AnswerOptions
from families.parsers import AnswerFormat
from postprocessing.answer_stream import AnswerStream
from postprocessing.finish_reason import FinishReasonInference
from postprocessing.streams import StreamKey, Streams


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer in progress.

    finish: for engines that do not report how an answer ended. client_id: which client sent its request, if it named
    itself. began: seconds of the Unix epoch.
    """

    stream: AnswerStream
    finish: FinishReasonInference
    client_id: str | None = None
    began: float = field(default_factory=time.time)


class Answers:
    """The answers in progress by stream, created with the options in their request's parameters.

    end_ids: ids that end an answer. Parameters are passed as a function that returns their JSON text, as they are
    only read with the first response of a stream.
    """

    def __init__(self, tokenizer: Tokenizer, answer_format: AnswerFormat, end_ids: frozenset[int]) -> None:
        self._tokenizer = tokenizer
        self._format = answer_format
        self._end_ids = end_ids
        self._streams: Streams[Answer] = Streams()

    def __len__(self) -> int:
        return len(self._streams)

    def __contains__(self, key: StreamKey) -> bool:
        return key in self._streams

    def get(self, key: StreamKey, parameters: Callable[[], str], reasoning_open: int | None = None) -> Answer:
        """The stream's answer, created if this is its first response.

        reasoning_open: whether the prompt ended inside the reasoning; None for what the parameters say.
        """
        return self._streams.get(key, lambda: self._create(parameters(), None, self._end_ids, reasoning_open))

    def find(self, key: StreamKey) -> Answer | None:
        """The answer of a stream that has begun, or None."""
        return self._streams.find(key)

    def announce(self, key: StreamKey, parameters: Callable[[], str], limit: int, end_id: int | None) -> None:
        """Create the answer of an engine that does not report its end.

        limit: the number of tokens that it may have. end_id: negative if no id ends it.
        """
        end_ids = self._end_ids if end_id is None or end_id >= 0 else frozenset[int]()
        self._streams.get(key, lambda: self._create(parameters(), limit, end_ids))

    def end(self, key: StreamKey) -> None:
        """Forget an answer that has ended."""
        self._streams.end(key)

    def forget_client(self, client_id: str, before: float) -> None:
        """Forget the answers of a client that began before this time, seconds of the Unix epoch: it has died."""
        self._streams.end_all(lambda answer: answer.client_id == client_id and answer.began < before)

    def whole_text(self, parameters: Callable[[], str], ids: list[int], finish: int | None) -> str:
        """The text of a further beam, which arrives whole: engines do not stream a beam search of several beams."""
        return self._create(parameters(), None, self._end_ids).stream.feed(ids, engine_finish=finish).text

    def _create(
        self, parameters: str, limit: int | None, end_ids: frozenset[int], reasoning_open: int | None = None
    ) -> Answer:
        given = json.loads(parameters or "{}")
        options = AnswerOptions.from_parameters(given)
        if reasoning_open is not None:
            options = replace(options, reasoning_open=bool(reasoning_open))
        stream = AnswerStream(self._tokenizer, self._format, options, self._end_ids)
        return Answer(stream, FinishReasonInference(limit, end_ids), given.get("owner"))
