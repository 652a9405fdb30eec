# SPDX-License-Identifier: Apache-2.0
"""vLLM's pooling runner behind the `PoolingEngine` protocol: embeddings, and scores of pairs of texts.

What is done to a prompt (special tokens, lower case, truncation, the template of a pair) and to its hidden states
(pooling, normalisation) is decided by vLLM from the files of the checkpoint.
"""

import asyncio
import dataclasses
import uuid
from collections.abc import Coroutine, Mapping, Sequence
from functools import partial
from itertools import cycle, islice
from typing import Any, Final

import torch
from vllm import PoolingParams
from vllm.config import PoolerConfig, VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.outputs import PoolingRequestOutput
from vllm.renderers import TokenizeParams
from vllm.renderers.chat_utils import ChatTemplateConfig
from vllm.renderers.inputs.preprocess import parse_model_prompt
from vllm.usage.usage_lib import UsageContext

from common.chat.template import load_template
from common.errors import RequestError
from engines.options import EngineOptions, refuse_unknown
from engines.pooling import Pooled, PoolingRequest, Prompt
from engines.vllm.config import KNOWN_OPTIONS, QUICK_END
from engines.vllm.errors import request_error
from engines.vllm.start import spawn_processes, start_llm
from engines.vllm.statistics import VllmStatistics

EMBED: Final = "embed"
CLASSIFY: Final = "classify"
# vLLM's names for a prompt that is longer than the context.
_TOO_LONG = ("input_tokens", "input_text")


def pooling_args(options: EngineOptions) -> AsyncEngineArgs:
    """Build vLLM's arguments; raises ValueError naming an option that vLLM does not have or whose value is wrong."""
    refuse_unknown(options.passed, KNOWN_OPTIONS)
    given = {"runner": "pooling", "worker_extension_cls": QUICK_END, **options.passed}
    pooler = given.get("pooler_config")
    if pooler is not None:
        if not isinstance(pooler, dict):
            raise ValueError(f"engine option 'pooler_config' must be an object, not {type(pooler).__name__}")
        given["pooler_config"] = PoolerConfig(**pooler)
    return AsyncEngineArgs(model=options.model_path, **given)


class VllmPooling:
    """One `AsyncLLM` with a pooling model: an embedding model (task "embed") or a cross-encoder ("classify").

    chat_template: file or text of the template of a cross-encoder's pairs, or None for that of the checkpoint.
    """

    def __init__(self, options: EngineOptions, chat_template: str | None = None) -> None:
        self._args = pooling_args(options)
        self._template = None if chat_template is None else load_template(chat_template)
        self._running = 0
        self._statistics = VllmStatistics()

    async def start(self) -> None:
        """Load the model and start the engine's processes; raises ValueError if it can neither embed nor score."""
        spawn_processes()
        config = self._args.create_engine_config(UsageContext.OPENAI_API_SERVER)
        self._llm, self._exit_task = start_llm(self._args, config, self._statistics)
        self._model_config = config.model_config
        # More of one request would only wait in vLLM, before the inputs of requests that come later.
        self._window = 2 * config.scheduler_config.max_num_seqs
        self._task = self._model_config.get_pooling_task(await self._llm.get_supported_tasks())
        self._pair_renderer = self._make_pair_renderer(config) if self._task == CLASSIFY else None
        if self._task not in (EMBED, CLASSIFY):
            raise ValueError(f"this model neither embeds nor scores texts: its task in vLLM is {self._task!r}")

    @property
    def max_model_len(self) -> int:
        """The context length in tokens, as vLLM finds it; only after `start`."""
        return int(self._model_config.max_model_len)

    async def pool(self, request: PoolingRequest) -> Pooled:
        """Compute the results; see `PoolingEngine.pool`."""
        self._check(request)
        self._running += 1
        try:
            if request.pairs is None:
                return await self._embed(request)
            return await (self._score_by_classes(request) if self._pair_renderer else self._score_by_cosine(request))
        except Exception as error:
            refusal = _refusal(error)
            if refusal is None:
                raise
            raise refusal from error
        finally:
            self._running -= 1

    def statistics(self) -> Mapping[str, float]:
        """All of STATISTICS; only the requests inside if vLLM's option disable_log_stats is set."""
        return self._statistics.values(self._running)

    def shutdown(self) -> None:
        """Stop the engine core and its workers."""
        self._exit_task.get_loop().call_soon_threadsafe(self._exit_task.cancel)
        self._llm.shutdown()

    def _check(self, request: PoolingRequest) -> None:
        if request.pairs is None and self._task != EMBED:
            raise RequestError("this model scores pairs of texts and has no embeddings", param="model")
        if request.pairs is not None and self._pair_renderer and self._model_config.hf_config.num_labels != 1:
            raise RequestError("this model has several classes, and therefore no score of a pair", param="model")
        vocab_size = self._model_config.get_vocab_size()
        for prompt in request.prompts:
            if isinstance(prompt, list) and not 0 <= min(prompt) <= max(prompt) < vocab_size:
                raise RequestError("a token id is not in the model's vocabulary", param="input_ids")

    async def _embed(self, request: PoolingRequest) -> Pooled:
        params = PoolingParams(task=EMBED, dimensions=request.dimensions)
        params.verify(self._model_config)
        rendered = await self._render(request.prompts, self._tokenize_params(request))
        outputs = await self._encode([(prompt, params) for prompt in rendered], request.request_id)
        return Pooled(num_input_tokens=_lengths(outputs), embeddings=_rows(outputs).numpy())

    async def _score_by_cosine(self, request: PoolingRequest) -> Pooled:
        """Score by the similarity of the embeddings. Each prompt and each pair is embedded once."""
        pairs = request.pairs or ()
        embedded = await self._embed(dataclasses.replace(request, prompts=[*request.prompts, *pairs], pairs=None))
        count = len(request.prompts)
        rows = torch.from_numpy(embedded.embeddings)
        scores = torch.nn.functional.cosine_similarity(rows[:count], rows[count:])
        lengths = embedded.num_input_tokens
        if count < len(pairs):
            # The one prompt is counted once.
            tokens = [lengths[0] + lengths[1], *lengths[2:]]
        else:
            tokens = [one + other for one, other in zip(lengths[:count], lengths[count:], strict=True)]
        return Pooled(num_input_tokens=tokens, scores=scores.numpy())

    async def _score_by_classes(self, request: PoolingRequest) -> Pooled:
        """Score with a cross-encoder, which reads both texts of a pair together."""
        pairs = request.pairs or ()
        tokenize, params = self._tokenize_params(request), PoolingParams(task=CLASSIFY)
        params.verify(self._model_config)
        render = partial(self._render_pairs, islice(cycle(request.prompts), len(pairs)), pairs, tokenize, params)
        # On the thread on which vLLM's own server does it.
        rendered = await asyncio.get_running_loop().run_in_executor(self._llm.renderer._executor, render)
        outputs = await self._encode(rendered, request.request_id)
        return Pooled(num_input_tokens=_lengths(outputs), scores=_rows(outputs).reshape(-1).numpy())

    def _tokenize_params(self, request: PoolingRequest) -> TokenizeParams:
        encoder = self._model_config.encoder_config or {}
        return TokenizeParams(
            max_total_tokens=self._model_config.max_model_len,
            truncate_prompt_tokens=request.truncate_prompt_tokens,
            do_lower_case=encoder.get("do_lower_case", False),
            max_total_tokens_param="max_model_len",
        )

    async def _render(self, prompts: Sequence[Prompt], tokenize: TokenizeParams) -> list[Any]:
        parsed = [parse_model_prompt(self._model_config, prompt) for prompt in prompts]
        return list(await self._llm.renderer.render_cmpl_async(parsed, tokenize))

    def _make_pair_renderer(self, config: VllmConfig) -> Any:
        # Imported here, because it brings vLLM's HTTP server.
        from vllm.entrypoints.pooling.scoring.io_processor import CrossEncoderIOProcessor

        template = ChatTemplateConfig(chat_template=self._template)
        return CrossEncoderIOProcessor(config, self._llm.renderer, template)  # type: ignore[no-untyped-call]

    def _render_pairs(
        self, queries: Any, documents: Sequence[str], tokenize: TokenizeParams, params: PoolingParams
    ) -> list[tuple[Any, PoolingParams]]:
        render: Any = self._pair_renderer.render  # type: ignore[union-attr] # a cross-encoder has one
        rendered: list[tuple[Any, PoolingParams]] = []
        for query, document in zip(queries, documents, strict=True):
            made = render(
                {
                    "data_1": query,
                    "data_2": document,
                    "chat_template": self._template,
                    "max_tokens_per_query": 0,
                    "max_tokens_per_doc": 0,
                    "tok_params": tokenize,
                    "prompt_extras": None,
                    "skip_mm_cache": False,
                    "params": params,
                    "lora_requests": None,
                    "priorities": 0,
                }
            )
            rendered.append((made["prompts"], made["params"]))
        return rendered

    async def _encode(self, inputs: Sequence[tuple[Any, PoolingParams]], request_id: str) -> list[PoolingRequestOutput]:
        """Run all inputs, some of them at once. An error or a cancellation ends all in vLLM."""
        window = asyncio.Semaphore(self._window)

        async def encode(prompt: Any, params: PoolingParams) -> PoolingRequestOutput:
            async with window:
                outputs = self._llm.encode(prompt, params, f"{request_id}.{uuid.uuid4().hex}")
                return [output async for output in outputs][-1]

        return await _together([encode(*one) for one in inputs])


async def _together(coroutines: list[Coroutine[Any, Any, PoolingRequestOutput]]) -> list[PoolingRequestOutput]:
    """Return the results of all; raises the first error, and then all have been cancelled."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in coroutines]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


def _refusal(error: Exception) -> RequestError | None:
    """The RequestError for an error that vLLM raised, with the name of our input; None for a fault of the engine."""
    refusal = request_error(error)
    if refusal is None or refusal is error or refusal.kind != "invalid_request":
        return refusal
    named = getattr(error, "parameter", None)
    if named in _TOO_LONG:
        return RequestError(refusal.message, kind="context_length", param="text_input")
    if named == "truncate_prompt_tokens":
        return RequestError(refusal.message, param=named)
    return RequestError(refusal.message, param="dimensions" if "imensions" in refusal.message else "text_input")


def _lengths(outputs: Sequence[PoolingRequestOutput]) -> list[int]:
    return [len(output.prompt_token_ids) for output in outputs]


def _rows(outputs: Sequence[PoolingRequestOutput]) -> torch.Tensor:
    """FP32 [outputs, length of each]."""
    failed = next((output for output in outputs if getattr(output, "error", None) is not None), None)
    if failed is not None:
        raise RuntimeError(f"vLLM failed on an input: {failed.error}")
    return torch.stack([output.outputs.data for output in outputs]).to(torch.float32).contiguous()
