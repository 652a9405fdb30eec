# SPDX-License-Identifier: Apache-2.0
"""vLLM's outputs of one request, taken where vLLM puts them."""

import asyncio
from typing import Any

from vllm.outputs import RequestOutput
from vllm.v1.engine.output_processor import RequestOutputCollector

from common.finish_reason import FinishReason
from engines.engine import Generation, Put, Tokens, engine_failure
from engines.logprob_rows import add_logprobs, cut
from engines.stop_words import StopWordsMatcher
from engines.vllm.errors import request_error
from engines.vllm.step_outputs import TAKE_IDS

FINISH_REASONS = {"stop": FinishReason.END_ID, "length": FinishReason.LENGTH, "abort": FinishReason.CANCELLED}


class Outputs:
    """Hands the outputs of one request over as tokens.

    vLLM puts each output into a queue and wakes the task that waits there, for every token. Here the queue passes it on
    instead. finished: vLLM has ended the request.
    """

    def __init__(self, generation: Generation, put: Put) -> None:
        self._generation = generation
        self._put = put
        self._matcher = StopWordsMatcher(generation.stop_words, generation.min_tokens or 0)
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.finished = False

    def take_over(self, queue: RequestOutputCollector) -> None:
        """Get what is put into a queue, and what is in it already."""
        queue.put = self._take  # type: ignore[method-assign]
        if self._generation.streaming:
            setattr(queue, TAKE_IDS, self.take_ids)
        waiting, queue.output = queue.output, None
        if waiting is not None:
            self._take(waiting)

    async def ended(self) -> None:
        """Wait for the end; raises what vLLM reports, refusals as RequestError, or a failure to read its outputs."""
        await self._ended

    def _take(self, output: Any) -> None:
        """Take an output or an error. It raises nothing: the caller is vLLM's reader of all requests' outputs."""
        if self._ended.done():
            return
        try:
            if isinstance(output, Exception):
                raise request_error(output) or output
            if self._hand_over(output):
                self._ended.set_result(None)
        except Exception as error:
            self._ended.set_exception(error)

    def take_ids(self, ids: list[int]) -> None:
        """Take new ids that nothing else comes with. It raises nothing, as `_take`."""
        if self._ended.done():
            return
        try:
            if self._pass_on(Tokens(ids)):
                self._ended.set_result(None)
        except Exception as error:
            self._ended.set_exception(error)

    def _hand_over(self, output: RequestOutput) -> bool:
        """Return whether this output was the last."""
        self.finished = output.finished
        return self._pass_on(_tokens(output, self._generation))

    def _pass_on(self, tokens: Tokens) -> bool:
        matched = self._matcher.feed(tokens.ids)
        if matched is not None:
            tokens = cut(tokens, matched)
        self._put(tokens)
        return tokens.finish is not None


def _tokens(output: RequestOutput, generation: Generation) -> Tokens:
    completion = output.outputs[0]
    tokens = Tokens(list(completion.token_ids), cached_tokens=output.num_cached_tokens)
    if completion.logprobs is not None:
        # A list, as SamplingParams.flat_logprobs is off.
        add_logprobs(tokens, completion.logprobs, generation.top_logprobs)  # type: ignore[arg-type]
    if output.prompt_logprobs:
        _add_prompt_logprobs(tokens, output.prompt_logprobs, generation)
    if output.finished:
        tokens.finish = _finish(completion, generation)
        if (metrics := getattr(completion, "spec_decode_metrics", None)) is not None:
            drafts = metrics.to_dict()
            tokens.draft_tokens = drafts["num_draft_tokens"]
            tokens.accepted_draft_tokens = drafts["num_accepted_draft_tokens"]
    return tokens


def _finish(completion: Any, generation: Generation) -> FinishReason:
    """The finish reason; vLLM's "stop" is the end id or one of the stop words.

    Raises RequestError for vLLM's "error", a failure of this request only.
    """
    reason = FINISH_REASONS.get(completion.finish_reason)
    if reason is None:
        raise engine_failure()
    if reason is FinishReason.END_ID and completion.stop_reason != generation.end_id:
        return FinishReason.STOP_WORDS
    return reason


def _add_prompt_logprobs(tokens: Tokens, rows: Any, generation: Generation) -> None:
    """Add one row per prompt token: the token itself, then its alternatives; NaN in the first row, which has none."""
    width = 1 + (generation.prompt_logprobs or 0)
    ids, logprobs, own_ranks = [[generation.prompt_ids[0]] * width], [[float("nan")] * width], [0]
    for token, row in zip(generation.prompt_ids[1:], rows[1:], strict=True):
        ranked = sorted(row.items(), key=lambda item: item[1].rank)[: width - 1]
        ids.append([token, *(other for other, _ in ranked)])
        logprobs.append([row[token].logprob, *(logprob.logprob for _, logprob in ranked)])
        own_ranks.append(row[token].rank)
    tokens.prompt_ids, tokens.prompt_logprobs, tokens.prompt_ranks = ids, logprobs, own_ranks
