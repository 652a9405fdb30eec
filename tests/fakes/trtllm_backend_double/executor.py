# SPDX-License-Identifier: Apache-2.0
"""The executor of the double: accepts or refuses requests, and streams scripted results."""

import asyncio
import itertools
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from script import Rule, find_rule, pieces
from wire import RequestInputs, words

from common.tokenizer import ChatTokenizer


class ExecutorError(Exception):
    """The executor cannot serve a request; the client gets the message."""


@dataclass(frozen=True, slots=True)
class DoubleOptions:
    """The options in `double.json` of the engine's folder; all but `slots` are read again for each request.

    sends_end_id: an answer's last id is its end id. adapters: how many the cache holds. slots: concurrent
    answers.
    """

    sends_end_id: bool = False
    adapters: int = 2**31
    slots: int = 2**31


@dataclass(slots=True)
class Request:
    """One executor request: a row of a batch, or one of its requested sequences."""

    number: int
    prompt: list[int]
    max_tokens: int
    end_id: int
    stop_words: list[list[int]]
    streaming: bool
    beams: int
    batch_index: int
    sequence_index: int
    adapter: int | None
    has_weights: bool
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(frozen=True, slots=True)
class Result:
    """New ids of each beam. total: ids of the first beam so far. final: whether the sequence ends."""

    request: Request
    beams: list[list[int]]
    total: int
    final: bool
    first_token_time_ns: int
    last_token_time_ns: int


class Executor:
    """Plays the script in the engine's folder, `slots` answers at once.

    It writes `asked.json` there: the names of the last request's inputs, and the values of those that are single numbers.
    """

    def __init__(self, parameters: Mapping[str, str], max_queue_size: int) -> None:
        folder = Path(parameters["gpt_model_path"])
        self._script = folder / "script.json"
        self._options_file = folder / "double.json"
        self._asked_file = folder / "asked.json"
        self._reuses = parameters["enable_kv_cache_reuse"] == "true"
        self._tokenizer = ChatTokenizer.load(Path(parameters["tokenizer_dir"]))
        self._max_beams = int(parameters["max_beam_width"])
        self._max_queue_size = max_queue_size
        self._slots = asyncio.Semaphore(self._options().slots)
        self._waiting = 0
        self._numbers = itertools.count(1)
        # Ids of the adapters whose weights are cached, the last used one last.
        self._adapters: list[int] = []

    def enqueue(self, inputs: RequestInputs) -> list[Request]:
        """Make the executor requests of one Triton request; raises ExecutorError if the backend would refuse it."""
        self._asked_file.write_text(json.dumps(inputs.summary()), encoding="utf-8")
        if inputs.array("input_ids") is None:
            raise ExecutorError("input_ids or encoder_input_features is not present in the request.")
        if self._reuses and "prompt_embedding_table" in inputs.names:
            extra_ids = inputs.array("prompt_table_extra_ids")
            if extra_ids is None or extra_ids.shape != inputs.array("input_ids").shape:
                raise ExecutorError(
                    "Input token extra ids must be provided when enabling kv cache reuse with prompt table"
                )
        beams = inputs.scalar("beam_width", 1)
        if beams > self._max_beams:
            raise ExecutorError(
                f"Requested beam width {beams} is larger than configured max beam width {self._max_beams}"
            )
        streaming = inputs.scalar("streaming", False)
        if streaming and beams > 1:
            raise ExecutorError("Returning all generated tokens is required to stream with a beam width above 1")
        rows, sequences = inputs.batch, inputs.scalar("num_return_sequences", 1)
        if self._waiting + rows * sequences > self._max_queue_size:
            raise ExecutorError(
                f"Maximum queue size of {self._max_queue_size} has been reached, please try again later"
            )
        return [
            self._request(inputs, row, sequence, streaming, beams)
            for row in range(rows)
            for sequence in range(sequences)
        ]

    async def run(self, request: Request) -> AsyncIterator[Result]:
        """Yield the results of a request; the last one is final, also after a cancellation."""
        self._waiting += 1
        async with self._slots:
            self._waiting -= 1
            self._use_adapter(request)
            rule = self._rule(request)
            parts = list(pieces(self._ids(rule, request), rule.sizes))
            answers = itertools.count()
            sent: list[int] = []
            first = last = 0
            for ids in parts:
                if rule.error_after == next(answers):
                    raise ExecutorError("scripted failure")
                if await _cancelled(request, rule.delay_s):
                    yield Result(request, [[]] * request.beams, len(sent), True, first, 0)
                    return
                sent += ids
                first = first or time.monotonic_ns()
                final = ids is parts[-1]
                # If the end id is not sent, the final result follows the last token and is empty.
                kept = final and self._keeps_end(rule, request, sent)
                last = time.monotonic_ns() if final and not kept else 0
                if request.streaming:
                    yield Result(request, [ids], len(sent), final and not kept, first, last)
                if kept and request.streaming:
                    yield Result(request, [[]], len(sent), True, first, time.monotonic_ns())
            if not request.streaming:
                yield Result(request, _beams(sent, request.beams), len(sent), True, first, time.monotonic_ns())

    def _use_adapter(self, request: Request) -> None:
        """Find the adapter of a request in the cache, or put it there; raises ExecutorError if its weights are needed."""
        task = request.adapter
        if task is None:
            return
        if task not in self._adapters and not request.has_weights:
            raise ExecutorError(f"LoRA task {task} not found in cache. Please send LoRA weights with request")
        self._adapters = [*(one for one in self._adapters if one != task), task][-self._options().adapters :]

    def _options(self) -> DoubleOptions:
        return DoubleOptions(**json.loads(self._options_file.read_text(encoding="utf-8")))

    def _request(self, inputs: RequestInputs, row: int, sequence: int, streaming: bool, beams: int) -> Request:
        return Request(
            number=next(self._numbers),
            prompt=inputs.prompt(row),
            max_tokens=inputs.scalar("request_output_len", 0, row),
            end_id=inputs.scalar("end_id", -1, row),
            stop_words=words(inputs.array("stop_words_list"), row),
            streaming=streaming,
            beams=beams,
            batch_index=row,
            sequence_index=sequence,
            adapter=inputs.scalar("lora_task_id", None, row),
            has_weights=_has_weights(inputs),
        )

    def _rule(self, request: Request) -> Rule:
        prompt = self._tokenizer.backend.decode(request.prompt, skip_special_tokens=False)
        rule = find_rule(self._script, prompt)
        if rule is None:
            raise ExecutorError("no rule of the script matches the prompt")
        return rule

    def _ends_itself(self, rule: Rule, request: Request) -> bool:
        return rule.finish == "END_ID" and request.end_id >= 0 and not rule.repeat

    def _ids(self, rule: Rule, request: Request) -> list[int]:
        ids = rule.answer(self._tokenizer, request.max_tokens)
        if self._ends_itself(rule, request) and self._options().sends_end_id:
            ids = [*ids, request.end_id]
        ids = ids[: request.max_tokens]
        ends = [
            end
            for end in range(1, len(ids) + 1)
            for word in request.stop_words
            if ids[max(0, end - len(word)) : end] == word
        ]
        return ids[: min(ends, default=len(ids))]

    def _keeps_end(self, rule: Rule, request: Request, sent: list[int]) -> bool:
        spoken = len(rule.answer(self._tokenizer, request.max_tokens))
        ended = self._ends_itself(rule, request) and len(sent) == spoken < request.max_tokens
        return ended and not self._options().sends_end_id


def _has_weights(inputs: RequestInputs) -> bool:
    weights, config = inputs.array("lora_weights"), inputs.array("lora_config")
    if weights is None or config is None:
        return False
    if weights.dtype != np.float16 or config.shape != (1, weights.shape[1], 3):
        raise ExecutorError("lora_weights and lora_config do not fit")
    return True


def _beams(ids: list[int], count: int) -> list[list[int]]:
    """Make beams from one answer, each one id shorter than the one before."""
    return [ids[: max(1, len(ids) - beam)] for beam in range(count)]


async def _cancelled(request: Request, delay_s: float) -> bool:
    """Whether the request is cancelled now or within the delay."""
    if delay_s:
        try:
            await asyncio.wait_for(request.cancelled.wait(), delay_s)
        except TimeoutError:
            return False
    else:
        await asyncio.sleep(0)
    return request.cancelled.is_set()
