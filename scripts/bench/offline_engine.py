# SPDX-License-Identifier: Apache-2.0
"""vLLM's engine without a server: the loop of the offline `LLM.generate`, ids in and ids out.

`python -m scripts.bench.offline_engine ADDRESS OPTIONS` runs as a process of its own, so that its CPU time can be
measured. It connects to the benchmark's socket, loads the engine and runs the streams that it receives. Like
`LLM.generate` it adds requests and steps the engine until none is left. A stream's next request is added when the one
before has finished. Ids are not detokenized.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing.connection import Client
from typing import Any

from scripts.bench.questions import Answer, Question, Sample, Stream, check_result


def main() -> None:
    """Run the received streams until the benchmark closes the connection."""
    address, options = sys.argv[1], json.loads(sys.argv[2])
    with Client(address) as connection:
        engine = load(options)
        sampling = partial(sampling_params, engine.model_config.get_diff_sampling_param())
        connection.send("ready")
        while True:
            try:
                streams = connection.recv()
            except EOFError:
                return
            connection.send(run_streams(engine, streams, sampling))


def load(options: dict[str, Any]) -> Any:
    """Create vLLM's `LLMEngine` with the limits of `vllm serve`, which differ from those of `LLM`."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.llm_engine import LLMEngine

    config = AsyncEngineArgs(**options).create_engine_config(UsageContext.OPENAI_API_SERVER)
    return LLMEngine.from_vllm_config(config, disable_log_stats=True)


def sampling_params(defaults: Mapping[str, Any], question: Question) -> Any:
    """Sampling parameters for an answer of exactly the requested length. defaults: those of the checkpoint."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    asked = {"temperature": question.temperature, "max_tokens": question.output_tokens, "ignore_eos": True}
    return SamplingParams(**{**defaults, **asked}, detokenize=False, output_kind=RequestOutputKind.DELTA)


def run_streams(engine: Any, streams: Sequence[Stream], sampling: Any) -> list[Answer]:
    """Run the streams concurrently, each from its time on, and the requests of each one after the other."""
    waiting = [iter(stream.measured) for stream in streams]
    # The streams that have not begun, the next one last.
    later = sorted(range(len(streams)), key=lambda stream: (-streams[stream].after, -stream))
    begun = time.monotonic()
    running: dict[str, _Running] = {}
    answers: list[Answer] = []

    def follow(stream: int) -> None:
        question = next(waiting[stream], None)
        if question is not None:
            name = f"{stream}-{len(answers)}-{time.monotonic_ns()}"
            running[name] = _Running(stream, question)
            prompt = {"prompt_token_ids": list(question.input_ids)}
            engine.add_request(name, prompt, sampling(question))

    while running or later:
        while later and (rest := begun + streams[later[-1]].after - time.monotonic()) <= 0:
            follow(later.pop())
        if not running:
            if later:
                time.sleep(max(0.0, rest))
            continue
        for output in engine.step():
            one = running[output.request_id]
            one.feed(len(output.outputs[0].token_ids), time.monotonic())
            if output.finished:
                del running[output.request_id]
                answers.append(one.answer())
                follow(one.stream)
    return answers


class _Running:
    def __init__(self, stream: int, question: Question) -> None:
        self.stream = stream
        self._question = question
        self._sent = time.monotonic()
        self._chunks: list[float] = []
        self._tokens = 0

    def feed(self, tokens: int, now: float) -> None:
        if tokens:
            self._chunks.append(now)
            self._tokens += tokens

    def answer(self) -> Answer:
        prompt = len(self._question.input_ids)
        ended = self._chunks[-1] if self._chunks else self._sent
        return check_result(self._question, Sample(self._sent, tuple(self._chunks), ended, prompt, self._tokens))


if __name__ == "__main__":
    main()
