# SPDX-License-Identifier: Apache-2.0
"""The double's LLM and the result of generate_async."""

import asyncio
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

import tensorrt_llm
from tensorrt_llm.sampling_params import SamplingParams

# Fields of TorchLlmArgs that are not explicit arguments and that deployments set.
KNOWN = {
    "pipeline_parallel_size": int, "context_parallel_size": int, "moe_tensor_parallel_size": int, "moe_expert_parallel_size": int,
    "gpus_per_node": int, "enable_attention_dp": bool, "guided_decoding_backend": str, "speculative_config": dict,
    "max_batch_size": int, "max_input_len": int, "max_seq_len": int, "max_beam_width": int, "max_num_tokens": int,
    "enable_chunked_prefill": bool, "kv_cache_config": dict, "stream_interval": int, "cuda_graph_config": dict,
    "attn_backend": str, "sampler_type": str, "disable_overlap_scheduler": bool, "scheduler_config": dict,
    "enable_iter_perf_stats": bool, "load_format": str, "backend": str, "moe_config": dict, "torch_compile_config": dict,
}  # fmt: skip


class RequestError(RuntimeError):
    """tensorrt_llm.executor.RequestError: the executor could not run a request."""


class EngineDeadError(Exception):
    """tensorrt_llm.executor.EngineDeadError of 1.3: the engine's processes have died; no request can run any more."""


@dataclass(slots=True)
class Logprob:
    logprob: float
    rank: int | None = None


@dataclass(slots=True)
class CompletionOutput:
    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[dict[int, Logprob]] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    _last: int = 0

    @property
    def token_ids_diff(self) -> list[int]:
        return self.token_ids[self._last :]

    @property
    def logprobs_diff(self) -> list[dict[int, Logprob]]:
        return self.logprobs[self._last :]


class RequestOutput:
    """An async iterator over itself, which only the event loop that created it can use."""

    def __init__(
        self, llm: "LLM", rule: dict[str, Any], params: SamplingParams, prompt: list[int], streaming: bool
    ) -> None:
        asyncio.get_running_loop()
        self.outputs = [CompletionOutput(0)]
        self.prompt_token_ids, self.cached_tokens = prompt, 0
        self._llm, self._rule, self._params, self._streaming = llm, rule, params, streaming
        self._left = llm.continuation(rule, params)
        self._done = self._aborted = False

    @property
    def finished(self) -> bool:
        return self._done

    def abort(self) -> None:
        self._aborted = True
        self._llm.aborted += 1

    def __aiter__(self) -> "RequestOutput":
        return self

    async def __anext__(self) -> "RequestOutput":
        if self._done:
            raise StopAsyncIteration
        await asyncio.sleep(self._rule.get("delay_s", 0.0))
        if self._rule.get("dies"):
            self._done = True
            raise EngineDeadError(self._rule["dies"])
        if self._rule.get("error"):
            self._done = True
            raise RequestError(self._rule["error"])
        output = self.outputs[0]
        output._last = len(output.token_ids)
        while not self._done:
            self._step(output)
            if self._streaming:
                break
        return self

    def _step(self, output: CompletionOutput) -> None:
        token = self._left.pop(0)
        output.token_ids.append(token)
        if self._params.logprobs:
            ranked = {token + rank: Logprob(-0.5 - rank, rank + 1) for rank in range(self._params.logprobs)}
            output.logprobs.append(ranked)
        if token in (self._params.stop_token_ids or ()):
            output.finish_reason, output.stop_reason = "stop", token
            if not self._params.include_stop_str_in_output:
                output.token_ids.pop()
        elif token == self._params.end_id and not self._params.ignore_eos:
            output.finish_reason = "stop"
        elif len(output.token_ids) >= self._params.max_tokens or not self._left:
            output.finish_reason = "length"
        self._done = output.finish_reason is not None


class DoubleTokenizer:
    def __init__(self, path: Path) -> None:
        self._backend = Tokenizer.from_file(str(path / "tokenizer.json"))
        self.encoded: list[str] = []

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return self._backend.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, token_ids: list[int], skip_special_tokens: bool = False) -> str:
        return self._backend.decode(token_ids, skip_special_tokens=skip_special_tokens)


class LLM:
    """The double of LLM: has its explicit arguments, and checks all others by name and type."""

    def __init__(
        self,
        model: str | Path,
        tokenizer: str | None = None,
        tokenizer_mode: str = "auto",
        skip_tokenizer_init: bool = False,
        trust_remote_code: bool = False,
        tensor_parallel_size: int = 1,
        dtype: str = "auto",
        revision: str | None = None,
        tokenizer_revision: str | None = None,
        **kwargs: Any,
    ) -> None:
        for key, value in kwargs.items():
            if key not in KNOWN:
                raise ValueError(f"LLM got invalid argument: {key}")
            if key == "sampler_type" and value == "TRTLLMSampler" and not tensorrt_llm.__version__.startswith("1.2"):
                raise ValueError("1 validation error for TorchLlmArgs: sampler_type TRTLLMSampler has been removed")
            if not isinstance(value, KNOWN[key]) or (isinstance(value, bool) and KNOWN[key] is not bool):
                raise ValueError(f"1 validation error for TorchLlmArgs: {key} must be {KNOWN[key].__name__}")
        if not isinstance(tensor_parallel_size, int) or not isinstance(dtype, str):
            raise ValueError("1 validation error for TorchLlmArgs")
        self.arguments = {"model": model, "tensor_parallel_size": tensor_parallel_size, "dtype": dtype} | kwargs
        self.tokenizer = DoubleTokenizer(Path(tokenizer or model))
        self.submitted: list[tuple[Any, SamplingParams]] = []
        self.aborted = 0
        self._down = False

    def generate_async(
        self,
        inputs: str | list[int] | dict[str, Any],
        sampling_params: SamplingParams | None = None,
        lora_request: None = None,
        prompt_adapter_request: None = None,
        streaming: bool = False,
        kv_cache_retention_config: None = None,
        disaggregated_params: None = None,
        scheduling_params: None = None,
        cache_salt: str | None = None,
    ) -> RequestOutput:
        if self._down:
            raise RuntimeError("LLM is shutting down")
        if not isinstance(sampling_params, SamplingParams):
            raise TypeError("The sampling_params must be type SamplingParams")
        prompt = self._prompt(inputs)
        limit = self.arguments.get("max_num_tokens", 8192)
        if len(prompt) > limit and not self.arguments.get("enable_chunked_prefill", False):
            raise ValueError(f"The sum of prompt length ({len(prompt)}) should not exceed max_num_tokens ({limit})")
        self.submitted.append((inputs, sampling_params))
        return RequestOutput(self, self._rule(prompt), sampling_params, prompt, streaming)

    def shutdown(self) -> None:
        self._down = True

    def _prompt(self, inputs: Any) -> list[int]:
        if isinstance(inputs, list) and all(type(one) is int for one in inputs):
            return inputs
        if isinstance(inputs, dict) and inputs.keys() <= {"prompt", "multi_modal_data", "mm_processor_kwargs"}:
            # As the family's processor: the text begins with <bos>, each image has 256 tokens between its marks.
            images = inputs.get("multi_modal_data", {}).get("image", [])
            text = inputs["prompt"]
            if "<|image_pad|>" in text:  # Qwen2-VL: a token for each 28 x 28 pixels.
                if text.count("<|image_pad|>") != len(images):
                    raise ValueError(f"{text.count('<|image_pad|>')} image tokens for {len(images)} images")
                head, *rest = text.split("<|image_pad|>")
                runs = ["<|image_pad|>" * (image.width // 28 * (image.height // 28)) for image in images]
                return self.tokenizer.encode(head + "".join(map("".join, zip(runs, rest, strict=True))))
            if text.count("<start_of_image>") != len(images):
                raise ValueError(
                    f"Prompt contained {text.count('<start_of_image>')} image tokens but received {len(images)} images."
                )
            run = "<image_soft_token>" * 256
            return self.tokenizer.encode(
                text.replace("<start_of_image>", f"\n\n<start_of_image>{run}<end_of_image>\n\n")
            )
        raise TypeError(f"The inputs must be type str or list of int, but got {type(inputs)}")

    def _rule(self, prompt: list[int]) -> dict[str, Any]:
        text = self.tokenizer.decode(prompt)
        rules = json.loads(Path(os.environ["TENSORRT_LLM_DOUBLE"]).read_text(encoding="utf-8"))
        for rule in rules:
            if rule.get("contains", "") in text:
                return rule
        raise ValueError("no rule of the double matches the prompt")

    def continuation(self, rule: dict[str, Any], params: SamplingParams) -> list[int]:
        ids = rule.get("ids") or self.tokenizer.encode(rule.get("text", ""), add_special_tokens=False)
        return [*ids, *([params.end_id] if rule.get("end", True) and (params.end_id or -1) >= 0 else [])]
