# SPDX-License-Identifier: Apache-2.0
"""The engine TensorRT-LLM through its PyTorch LLM API (1.2.1 to 1.4): ids in, ids out, no text."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorrt_llm import LLM

from common.errors import RequestError
from common.finish_reason import FinishReason
from common.vision_path import LLMAPI, VisionPath, vision_path
from engines.dead_engine import exit_when_dead
from engines.engine import Generation, Put, Tokens, engine_failure
from engines.llmapi.errors import executor_refusal
from engines.llmapi.images import Gemma3Prompts, RawPrompts
from engines.llmapi.options import has_vision, llm_arguments, own_sampling, penalises
from engines.llmapi.sampling import sampling_params
from engines.logprob_rows import add_logprobs, cut
from engines.options import EngineOptions
from engines.sampling import refused
from engines.stop_words import StopWordsMatcher, let_stop

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
        self._penalising = penalises(self._arguments)
        self._checkpoint = Path(options.model_path)
        self._images: Gemma3Prompts | None = None
        self._raw: RawPrompts | None = None
        self._running = self._generated = 0
        # Whether its processes have died: the LLM then refuses every request.
        self.errored = False

    async def start(self) -> None:
        """Load the model and start the engine's processes; raises ValueError for an unknown option."""
        # It takes minutes, in which this loop must answer.
        self._llm = await asyncio.to_thread(LLM, **self._arguments)
        self._defaults = own_sampling(self._checkpoint)
        if has_vision(self._checkpoint):
            self._images = Gemma3Prompts(self._checkpoint, self._llm.tokenizer)
        elif vision_path(self._checkpoint, engine=LLMAPI) is VisionPath.RAW:
            self._raw = RawPrompts(self._llm.tokenizer)
        self._exit_task = asyncio.create_task(exit_when_dead(self))

    async def generate(self, generation: Generation, put: Put) -> None:
        """Generate one continuation; see `Engine.generate`."""
        generation, put = let_stop(generation, put)
        params = sampling_params(generation, self._defaults, self._penalising)
        inputs = await self._inputs(generation)
        matcher = StopWordsMatcher(generation.stop_words, generation.min_tokens or 0)
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
                    put(cut(tokens, matched))
                    return
                put(tokens)
        except Exception as error:
            if (failure := self._failure(error)) is None:
                raise
            raise failure from error
        finally:
            self._running -= 1
            if not result.finished:
                result.abort()

    def statistics(self) -> Mapping[str, float]:
        """The values that can be counted here; TensorRT-LLM reports its cache and queue elsewhere."""
        return {"running": float(self._running), "generated_tokens_total": float(self._generated)}

    def adapters_in_use(self) -> Mapping[str, Any]:
        """Nothing: LoRA adapters are not passed on to the LLM API."""
        return {}

    def shutdown(self) -> None:
        """Stop the engine and its processes."""
        self._exit_task.get_loop().call_soon_threadsafe(self._exit_task.cancel)
        self._llm.shutdown()

    async def _inputs(self, generation: Generation) -> Any:
        if generation.multimodal is not None:
            if self._raw is None:
                raise RequestError("this engine takes no pictures of this model", param="multimodal")
            return await asyncio.to_thread(self._raw.build, generation)
        if generation.images is None:
            return generation.prompt_ids
        if self._images is None:
            raise RequestError("this engine takes no images: its model has no vision tower", param="images")
        return await asyncio.to_thread(self._images.build, generation)

    def _submit(self, inputs: Any, params: Any, streaming: bool) -> Any:
        """Submit the request, on the loop's own thread: the result is bound to the loop it is created in."""
        try:
            return self._llm.generate_async(inputs, params, streaming=streaming)
        except ValueError as error:
            raise refused(str(error)) from error
        except Exception as error:
            if (failure := self._failure(error)) is None:
                raise
            raise failure from error

    def _failure(self, error: Exception) -> RequestError | None:
        """The error for the client if the request is wrong or the processes have died; None for other faults.

        The latter is an EngineDeadError since 1.3, for running requests too.
        """
        if type(error).__name__ == "EngineDeadError" or "shutting down" in str(error):
            self.errored = True
            return RequestError("the engine has stopped", kind="unavailable")
        return executor_refusal(error)


def _tokens(output: Any, generation: Generation, first: bool) -> Tokens:
    completion = output.outputs[0]
    tokens = Tokens(list(completion.token_ids_diff))
    if first:
        tokens.cached_tokens = getattr(output, "cached_tokens", None)
        if generation.multimodal is not None:
            tokens.prompt_tokens = len(output.prompt_token_ids)
    if generation.return_log_probs:
        add_logprobs(tokens, completion.logprobs_diff, generation.top_logprobs)
    if output.finished:
        tokens.finish = _finish(completion)
    return tokens


def _finish(completion: Any) -> FinishReason:
    """The finish reason; "stop" is the end id, or a stop word if there is a stop reason.

    Raises RequestError for an end without a known reason.
    """
    reason = FINISH_REASONS.get(completion.finish_reason)
    if reason is None:
        raise engine_failure()
    return FinishReason.STOP_WORDS if completion.stop_reason is not None and reason is FinishReason.END_ID else reason
