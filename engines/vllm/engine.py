# SPDX-License-Identifier: Apache-2.0
"""vLLM behind the `Engine` protocol: ids in, ids out, no text."""

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vllm.envs import enable_envs_cache
from vllm.lora.request import LoRARequest
from vllm.v1.engine.exceptions import EngineDeadError

from common.adapters import Adapter
from common.errors import RequestError
from engines.adapters import AdapterTable
from engines.engine import Generation, Put
from engines.options import EngineOptions
from engines.vllm.config import engine_args, engine_config
from engines.vllm.errors import request_error
from engines.vllm.outputs import Outputs
from engines.vllm.prompt import Prompts
from engines.vllm.sampling import sampling_params
from engines.vllm.start import spawn_processes, start_llm
from engines.vllm.statistics import VllmStatistics
from engines.vllm.stream_interval import StreamInterval


class VllmEngine:
    """One `AsyncLLM`. Requests run until they end or their task is cancelled."""

    def __init__(self, options: EngineOptions) -> None:
        self._args = engine_args(options)
        self._running = 0
        self._statistics = VllmStatistics()
        self.adapters: AdapterTable | None = None
        if self._args.enable_lora:
            self.adapters = AdapterTable(
                options.adapters,
                Path(options.model_path),
                self._add_lora,
                self._remove_lora,
                max_rank=self._args.max_lora_rank,
                room=self._args.max_cpu_loras,
            )

    async def start(self) -> None:
        """Load the model and start the engine's processes."""
        spawn_processes()
        config = engine_config(self._args)
        self._llm, self._exit_task = start_llm(self._args, config, self._statistics)
        self._stream_interval = StreamInterval(self._llm.output_processor)
        # vLLM reads environment variables for every token. They no longer change, so it may cache them.
        enable_envs_cache()
        self._defaults: dict[str, Any] = config.model_config.get_diff_sampling_param()
        self._prompts = Prompts(config)
        if self.adapters is not None:
            await self.adapters.load_first()

    async def generate(self, generation: Generation, put: Put) -> None:
        """Generate one continuation; see `Engine.generate`."""
        if generation.prompt_logprobs is not None and self.adapters is not None:
            # vLLM (0.32) sizes the adapters' part of the logits for the tokens to sample: the prompt's end the engine.
            raise RequestError(
                "with LoRA adapters the engine gives no log-probabilities of the prompt", param="prompt_logprobs"
            )
        if self._args.speculative_config and generation.guide_type and generation.thinking_token_budget is not None:
            # vLLM (0.32) then let the reasoning of a draft model's request go on past the budget.
            raise RequestError(
                "with speculative decoding the engine enforces no thinking_token_budget beside a guide",
                param="thinking_token_budget",
            )
        params, prompt = sampling_params(generation, self._defaults), await self._prompts.build(generation)
        with self._lora(generation) as lora:
            self._running += 1
            try:
                with _refusals():
                    queue = await self._llm.add_request(
                        f"{generation.request_id}.{uuid.uuid4().hex}",
                        prompt,
                        params,
                        lora_request=lora,
                        trace_headers={"traceparent": generation.traceparent} if generation.traceparent else None,
                        priority=generation.priority,
                    )
                outputs = Outputs(generation, put)
                outputs.take_over(queue)
                try:
                    await outputs.ended()
                finally:
                    queue.close()  # type: ignore[no-untyped-call] # of vLLM
                    if not outputs.finished and not self._llm.errored:
                        await self._llm.abort(queue.request_id, internal=True)
            finally:
                self._running -= 1

    def statistics(self) -> Mapping[str, float]:
        """All of STATISTICS; only the requests inside if vLLM's option disable_log_stats is set."""
        return self._statistics.values(self._running)

    def adapters_in_use(self) -> Mapping[str, Any]:
        """The LoRA adapters of vLLM's last step."""
        return self._statistics.adapters(self._running)

    def adjust_stream_interval(self, tokens_per_response: float) -> None:
        """Hand tokens over less often if responses hold several anyway."""
        self._stream_interval.adjust(tokens_per_response, self._running)

    @contextmanager
    def _lora(self, generation: Generation) -> Iterator[LoRARequest | None]:
        """The adapter of a generation, which stays in the engine while the context is open.

        Raises RequestError if there is no such adapter.
        """
        if generation.lora_task_id is None or self.adapters is None:
            yield None
            return
        with self.adapters.use(generation.lora_task_id) as adapter:
            yield lora_request(adapter)

    async def _add_lora(self, adapter: Adapter) -> None:
        """Load an adapter; raises ValueError with vLLM's reason if it cannot."""
        try:
            await self._llm.add_lora(lora_request(adapter))
        except EngineDeadError:
            raise
        except Exception as error:
            # It may be there already, if it did not fit the layers.
            with suppress(Exception):
                await self._llm.remove_lora(adapter.id)
            raise ValueError(str(error)) from error

    async def _remove_lora(self, adapter: Adapter) -> None:
        await self._llm.remove_lora(adapter.id)

    def shutdown(self) -> None:
        """Stop the engine core and its workers."""
        self._exit_task.get_loop().call_soon_threadsafe(self._exit_task.cancel)
        self._llm.shutdown()


@contextmanager
def _refusals() -> Iterator[None]:
    """Raise vLLM's refusals of a request in the block as RequestError."""
    try:
        yield
    except Exception as error:
        refusal = request_error(error)
        if refusal is None:
            raise
        raise refusal from error


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
        raise RequestError("the engine failed on this request", kind="internal")
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
