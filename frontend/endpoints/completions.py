# SPDX-License-Identifier: Apache-2.0
"""Plain completions: prompts become ensemble requests, their deltas become chunks or one body."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from sys import getsizeof
from typing import Any

import orjson

from common.answer_options import AnswerOptions
from common.errors import RequestError
from frontend.endpoints.completion_logprobs import CompletionLogprobs
from frontend.endpoints.guides import guide_inputs
from frontend.endpoints.own_names import OwnNames, generation_names
from frontend.endpoints.prompt_logprobs import of_prompt, token_ids_json, with_first_parameters
from frontend.endpoints.sampling import engine_parameters, sampling_inputs, seeded
from frontend.protocol.completions import CompletionBody, Prompt
from frontend.protocol.refused import REFUSED_IN_COMPLETIONS, refuse
from frontend.serving.answer import Plan, head, new_id
from frontend.serving.served_model import RequestedModel
from frontend.serving.sse import ChunkFrames
from frontend.triton.tensors import Delta, EnsembleRequest, Parameter
from frontend.triton.usage import Usage


async def plan_completion(model: RequestedModel, raw: dict[str, Any]) -> "CompletionPlan":
    """Validate and map to tensors; prompts that are to be echoed and came as ids are detokenized."""
    refuse(raw, REFUSED_IN_COMPLETIONS)
    body = CompletionBody.model_validate(raw)
    fields = sampling_inputs(body) | guide_inputs(body)
    fields |= {
        # Engines generate at least one token; `adapt` drops it if none was requested.
        "max_tokens": max(1, body.length),
        "return_log_probs": True if body.logprobs is not None else None,
        "parameters": _parameters(body, model.served.settings.cache_salt_by_key),
        "lora_task_id": model.lora_task_id,
    }
    requests = [_request(prompt, fields) for prompt in body.prompt]
    echoes = await asyncio.gather(*(_echo(model, body, prompt) for prompt in body.prompt))
    return CompletionPlan(body, model.name, requests, echoes)


def _request(prompt: Prompt, fields: dict[str, Any]) -> EnsembleRequest:
    if isinstance(prompt, str):
        return EnsembleRequest(text_input=prompt, **fields)
    return EnsembleRequest(input_ids=tuple(prompt), **fields)


async def _echo(model: RequestedModel, body: CompletionBody, prompt: Prompt) -> str:
    if not body.echo:
        return ""
    return prompt if isinstance(prompt, str) else await model.served.detokenize(prompt)


def _parameters(body: CompletionBody, salt_by_key: bool) -> dict[str, Parameter]:
    options = AnswerOptions(
        stop=tuple(body.stop or ()),
        stop_token_ids=tuple(body.stop_token_ids or ()),
        include_stop=bool(body.include_stop_str_in_output),
        # Only stop strings need it here; stop tokens wait for it in the engine.
        min_tokens=(body.min_tokens or 0) if body.stop else 0,
        skip_special_tokens=body.skip_special_tokens is not False,
        logprobs=body.logprobs is not None,
        top_logprobs=body.logprobs or 0,
        continuous_usage=body.continuous_usage,
        token_ids=bool(body.return_token_ids),
    )
    return engine_parameters(body, salt_by_key=salt_by_key) | options.to_parameters()


def _names(body: CompletionBody) -> dict[str, str]:
    names = generation_names(body, "prompt")
    return names if body.prompt_logprobs is not None else names | {"prompt_logprobs": "echo"}


class CompletionPlan(Plan):
    """The requests of a plain completion and how their deltas are written. Choice = index of the prompt * n + i."""

    def __init__(
        self, body: CompletionBody, model: str, requests: Sequence[EnsembleRequest], echoes: Sequence[str]
    ) -> None:
        self.id = new_id("cmpl")
        first = partial(
            with_first_parameters,
            body=body,
            echoed=body.logprobs if body.echo else None,
            choices=len(requests) * body.choices,
        )
        choices = [seeded(request, body.choices) for request in requests]
        self.requests = [one for each in choices for one in (first(each[0]), *each[1:])]
        self.stream = bool(body.stream)
        self.include_usage = body.include_usage
        self.usage = Usage(per_prompt=body.choices)
        self._body = body
        self._names: Callable[[], dict[str, str]] = partial(_names, body)
        self._model, self._created = model, int(time.time())
        self._echoes = [echo for echo in echoes for _ in range(body.choices)]
        self._logprobs = [CompletionLogprobs(body.logprobs or 0) for _ in self.requests]
        text = b'"text"', b"", b""
        self._frames = ChunkFrames(self._head(), len(self.requests), with_usage=body.include_usage, text=text)

    def adapt(self, delta: Delta) -> Delta:
        if self._body.max_tokens == 0:
            finish = None if delta.finish_reason is None else "length"
            none_made = None if delta.completion_tokens is None else 0
            return replace(delta, text="", logprobs=(), token_ids=(), finish_reason=finish, completion_tokens=none_made)
        return delta

    def forget_prompts(self) -> int:
        names = self._names()
        self._body, self._names = self._body.without_prompt(), partial(dict, names)
        echoes = self._echoes[:: self._body.choices]
        return super().forget_prompts() + sum(getsizeof(echo) for echo in echoes if echo)

    def own_error(self, error: RequestError) -> RequestError:
        return OwnNames(self._names()).own(error)

    def first_chunks(self) -> bytes:
        echoes = [(choice, echo) for choice, echo in enumerate(self._echoes) if echo]
        frames: list[bytes] = []
        for choice, echo in echoes:
            if self._body.continuous_usage:
                self._frames.set_usage(self.usage.so_far(choice, begun=False))
            frames.append(self._frames.chunk(choice, b'"text"', orjson.dumps(echo)))
        return b"".join(frames)

    def chunks(self, choice: int, delta: Delta) -> bytes:
        if self._body.continuous_usage:
            self._frames.set_usage(self.usage.so_far(choice))
        frames: list[bytes] = []
        ids, prompt_ids = token_ids_json(self._body, delta)
        if delta.text or delta.logprobs or ids or prompt_ids:
            logprobs = b"null"
            if delta.logprobs:
                logprobs = orjson.dumps(self._logprobs[choice].convert(delta.logprobs))
            text = orjson.dumps(delta.text)
            frames.append(self._frames.chunk(choice, b'"text"', text, logprobs, more=ids + prompt_ids))
        if delta.finish_reason is not None:
            frames.append(self._frames.chunk(choice, b'"text"', b'""', finish=orjson.dumps(delta.finish_reason)))
        return b"".join(frames)

    def text_chunk(self, choice: int, text: str) -> bytes:
        if not text or self._body.continuous_usage or self._body.max_tokens == 0:
            return super().text_chunk(choice, text)
        return self._frames.text(choice, text)

    def usage_chunk(self) -> bytes:
        return self._frames.usage(self.usage.body(), self.metrics())

    def whole(self, answers: list[Delta]) -> dict[str, Any]:
        n = self._body.choices
        choices: list[dict[str, Any]] = []
        for start in range(0, len(answers), n):
            first = answers[start]
            about_prompt = of_prompt(self._body, first)
            for index in range(start, start + n):
                choices.append(self._choice(index, answers[index], first.prompt_logprobs) | about_prompt)
        return self._head() | {"choices": choices, "usage": self.usage.body()} | self.metrics()

    def _head(self) -> dict[str, Any]:
        return head(self.id, "text_completion", self._created, self._model)

    def _choice(self, index: int, delta: Delta, of_prompt: tuple[dict[str, Any], ...]) -> dict[str, Any]:
        logprobs = None
        if self._body.logprobs is not None:
            prompt = of_prompt if self._body.echo else ()
            logprobs = self._logprobs[index].convert((*prompt, *delta.logprobs))
        return {
            "index": index,
            "text": self._echoes[index] + delta.text,
            "logprobs": logprobs,
            "finish_reason": delta.finish_reason,
            **({"token_ids": list(delta.token_ids)} if self._body.return_token_ids else {}),
        }
