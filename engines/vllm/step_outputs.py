# SPDX-License-Identifier: Apache-2.0
"""Take the tokens of a step past vLLM's output processor, which spends most of this process's time on them.

For each token of each request vLLM updates its statistics and builds a RequestOutput, of which only the new ids are
used here. This takes 10 to 15 us, and with 512 requests it limits the tokens per second.
"""

from collections.abc import Callable, Iterable
from typing import Any

from vllm.v1.engine import EngineCoreOutput

# The attribute of a request's queue with the function that takes its new ids.
TAKE_IDS = "take_ids"


class StepOutputs:
    """Replaces `process_outputs` of an output processor: vLLM's own gets the outputs that have more than new ids.

    Those are the first and the last of each request, and those with log-probabilities or events, for example.
    processor: vLLM's `OutputProcessor`. Used on its loop only.
    """

    def __init__(self, processor: Any) -> None:
        self._states: dict[str, Any] = processor.request_states
        self._process: Callable[..., Any] = processor.process_outputs
        processor.process_outputs = self.process

    def process(
        self, outputs: Iterable[EngineCoreOutput], timestamp: float | None = None, stats: Any = None, **more: Any
    ) -> Any:
        """Take the outputs of some requests of a step; the arguments and the result are vLLM's."""
        others: list[EngineCoreOutput] = []
        count = 0
        for output in outputs:
            state = self._states.get(output.request_id)
            if state is None:
                # The request was aborted.
                continue
            take = getattr(state.queue, TAKE_IDS, None)
            # With a stream interval, vLLM collects the ids.
            if take is None or state.is_prefilling or state.stream_interval > 1 or not _has_only_ids(output):
                others.append(output)
                continue
            ids = output.new_token_ids
            count += len(ids)
            # vLLM reads these with the last output.
            state.detokenizer.token_ids += ids
            if state.stats is not None:
                state.stats.num_generation_tokens += len(ids)
                state.stats.last_token_ts = timestamp
            take(ids)
        if stats is not None:
            stats.num_generation_tokens += count
        return self._process(others, timestamp, stats, **more)


def _has_only_ids(output: EngineCoreOutput) -> bool:
    try:
        return output == EngineCoreOutput(output.request_id, output.new_token_ids)
    except (ValueError, RuntimeError):
        # Arrays and tensors have no truth value.
        return False
