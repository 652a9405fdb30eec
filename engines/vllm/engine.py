# SPDX-License-Identifier: Apache-2.0
"""vLLM behind the `Engine` protocol: ids in, ids out, no text."""

import asyncio
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vllm.config import VllmConfig
from vllm.envs import enable_envs_cache
from vllm.lora.request import LoRARequest
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError

from common.adapters import Adapter
from common.errors import RequestError
from engines.adapters import AdapterTable
from engines.engine import Generation, Put
from engines.options import EngineOptions
from engines.peers import Peers
from engines.stop_words import let_stop
from engines.vllm.config import engine_args, engine_config
from engines.vllm.errors import request_error
from engines.vllm.outputs import Outputs
from engines.vllm.prompt import Prompts
from engines.vllm.sampling import sampling_params
from engines.vllm.start import client_addresses, join_llm, spawn_processes, start_llm
from engines.vllm.statistics import VllmStatistics, drop_prometheus
from engines.vllm.step_outputs import StepOutputs


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
        config = self._config()
        await self._begin(config, *start_llm(self._args, config, self._statistics))

    async def start_with(self, peers: Peers) -> None:
        """Start the engine core for all processes, or connect to it; see `SharedEngine.start_with`."""
        config = self._config(peers.count)
        if peers.first:
            others = client_addresses(peers.count - 1)
            await self._begin(config, *start_llm(self._args, config, self._statistics, others))
            peers.give(others)
            return
        addresses = (await peers.given())[peers.index - 1]
        # vLLM waits for the engine core, for minutes if that has died, and the event loop stands still meanwhile.
        with peers.tied_to_first():
            joined = join_llm(self._args, config, self._statistics, addresses, peers.index, peers.count)
        await self._begin(config, *joined)

    def _config(self, clients: int = 1) -> VllmConfig:
        spawn_processes()
        config = engine_config(self._args)
        if clients > 1 and config.parallel_config.data_parallel_size > 1:
            raise ValueError("with several instances of tensorrt_llm data_parallel_size must be 1")
        return config

    async def _begin(self, config: VllmConfig, llm: AsyncLLM, exit_task: "asyncio.Task[None]") -> None:
        """Prepare for requests. exit_task: ends this process when the engine has died."""
        self._llm, self._exit_task = llm, exit_task
        drop_prometheus(llm.logger_manager)
        StepOutputs(llm.output_processor)
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
        generation, put = let_stop(generation, put)
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
                # It may have pictures, which are with the engine core now.
                del prompt
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

    def report(self) -> dict[str, Any]:
        """What vLLM has told this process; see `SharedEngine.report`."""
        return self._statistics.report(self._running)

    def shared_statistics(self, reports: Sequence[Any]) -> Mapping[str, Any]:
        """The statistics of all processes; see `SharedEngine.shared_statistics`."""
        adapters = self._statistics.adapters(self._running, reports)
        return {**self._statistics.values(self._running, reports), **adapters}

    def disconnect(self) -> None:
        """Do what vLLM does when the engine core's process has died, which only the first process sees."""
        if hasattr(self, "_llm"):
            self._llm.engine_core.resources.engine_dead = True
            self._llm.engine_core.shutdown()

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


def lora_request(adapter: Adapter) -> LoRARequest:
    """An adapter as vLLM takes it. Its prefix cache goes by the name, which with the id is that of one content only."""
    return LoRARequest(f"{adapter.name}#{adapter.id}", adapter.id, adapter.path)
