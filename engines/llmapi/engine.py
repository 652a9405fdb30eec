# SPDX-License-Identifier: Apache-2.0
"""TensorRT-LLM's PyTorch LLM API behind the `Engine` protocol: ids in, ids out, no text.

Written against TensorRT-LLM 1.2.1.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

from tensorrt_llm import LLM

from common.errors import RequestError
from common.finish_reason import FinishReason
from engines.dead_engine import end_with
from engines.engine import Generation, Tokens
from engines.llmapi.images import Gemma3Prompts
from engines.llmapi.options import PENALISING, llm_arguments, own_sampling, sees
from engines.llmapi.sampling import sampling_params
from engines.logprob_rows import add_logprobs, cut
from engines.options import EngineOptions
from engines.stop_words import StopWordsMatcher

FINISH_REASONS = {
    "stop": FinishReason.END_ID,
    "length": FinishReason.LENGTH,
    "timeout": FinishReason.TIMED_OUT,
    "cancelled": FinishReason.CANCELLED,
}


class LlmApiEngine:
    """One `LLM`. Requests run until their iterator ends, is closed or its task is cancelled."""

    def __init__(self, options: EngineOptions) -> None:
        self._arguments = llm_arguments(options)
        self._penalising = self._arguments.get("sampler_type") in PENALISING
        self._checkpoint = Path(options.model_path)
        self._images: Gemma3Prompts | None = None
        self._running = self._generated = 0
        # Whether its processes have died: the LLM refuses everything from then on.
        self.errored = False

    async def start(self) -> None:
        """Load the model and start the engine's processes; raises ValueError for an option that it does not have."""
        # Minutes, in which this loop must answer.
        self._llm = await asyncio.to_thread(LLM, **self._arguments)
        self._defaults = own_sampling(self._checkpoint)
        if sees(self._checkpoint):
            self._images = Gemma3Prompts(self._checkpoint, self._llm.tokenizer)
        self._end = asyncio.create_task(end_with(self))

    async def generate(self, generation: Generation) -> AsyncGenerator[Tokens, None]:
        """Stream one continuation; see `Engine.generate`."""
        params = sampling_params(generation, self._defaults, self._penalising)
        inputs = await self._inputs(generation)
        matcher = StopWordsMatcher(generation.stop_words)
        result = self._submit(inputs, params, generation.streaming)
        self._running += 1
        first = True
        try:
            async for output in result:
                tokens = _tokens(output, generation, first)
                first = False
                self._generated += len(tokens.ids)
                matched = matcher.feed(tokens.ids)
                if matched is not None:
                    yield cut(tokens, matched)
                    return
                yield tokens
        except RuntimeError as error:
            # What its executor says of a request that it could not run.
            if type(error).__name__ == "RequestError":
                raise RequestError(str(error)) from error
            raise
        finally:
            self._running -= 1
            if not result.finished:
                result.abort()

    def statistics(self) -> Mapping[str, float]:
        """What can be counted from outside: TensorRT-LLM tells of its cache and its queue by another road."""
        return {"running": float(self._running), "generated_tokens_total": float(self._generated)}

    def pace(self, tokens_per_response: float) -> None:
        """It has no setting for that."""

    def shutdown(self) -> None:
        """Stop the engine and its processes."""
        self._end.get_loop().call_soon_threadsafe(self._end.cancel)
        self._llm.shutdown()

    async def _inputs(self, generation: Generation) -> Any:
        if generation.images is None:
            return generation.prompt_ids
        if self._images is None:
            raise RequestError("this engine takes no images: its model has no vision tower", param="images")
        return await asyncio.to_thread(self._images.build, generation)

    def _submit(self, inputs: Any, params: Any, streaming: bool) -> Any:
        """On this thread: the result belongs to the loop that it is asked for in."""
        try:
            return self._llm.generate_async(inputs, params, streaming=streaming)
        except ValueError as error:
            raise RequestError(str(error)) from error
        except RuntimeError as error:
            if "shutting down" not in str(error):
                raise
            self.errored = True
            raise RequestError("the engine has stopped", kind="unavailable") from error


def _tokens(output: Any, generation: Generation, first: bool) -> Tokens:
    completion = output.outputs[0]
    tokens = Tokens(list(completion.token_ids_diff))
    if first:
        tokens.cached_tokens = getattr(output, "cached_tokens", None)
    if generation.return_log_probs:
        add_logprobs(tokens, completion.logprobs_diff, generation.top_logprobs)
    if output.finished:
        tokens.finish = _finish(completion)
    return tokens


def _finish(completion: Any) -> FinishReason:
    """It says "stop" for both; a stop reason is there for stop words alone."""
    reason = FINISH_REASONS.get(completion.finish_reason, FinishReason.CANCELLED)
    return FinishReason.STOP_WORDS if completion.stop_reason is not None and reason is FinishReason.END_ID else reason
