# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.soak chaos`: a scripted stack, load and disturbances, and the report."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from scripts.launcher import Stack
from scripts.split.splitter import split_checkpoint
from tests.soak.chaos.clients import Clients
from tests.soak.chaos.disturbances import DISTURBANCES, ISOLATED, Disturber
from tests.soak.chaos.known_answers import ping, rules
from tests.soak.chaos.result import ChaosResult
from tests.soak.chaos.run import left_over, living, run_chaos
from tests.soak.gauges import busy, read_gauges
from tests.soak.reports import TOKENIZERS, memory_header, memory_row, say
from tests.support.pooling_checkpoints import make_qwen3_embedding
from tests.support.scripted import PAIR, scripted_pair, scripted_stack
from tests.support.vlm_checkpoints import make_internvl

RECOVERY_S = 600.0  # within which everything must serve again


def chaos(minutes: float, seed: str, clients: int, *, several: bool, isolated: bool) -> int:
    """Disturb the processes of a stack under a load whose answers are known; prints what came of it.

    several: serve three models, one of them of embeddings, instead of one that sees. isolated: nothing else uses the
    memory, /dev/shm and the temporary folder's disk. Returns 1 if an answer was wrong, a request hung or a process was
    left. Raises TimeoutError if requests are left, or a model does not come back.
    """
    result = ChaosResult()
    weights = {**DISTURBANCES, **(ISOLATED if isolated else {})}
    with _chaotic_stack(several) as (stack, models):
        disturber = Disturber(stack, seed, result, weights, stack.options.log_dir)
        load = Clients(stack.url, seed, result, **models)
        memory_header(stack, "minutes")
        memory_row(stack, 0)
        begun = time.monotonic()
        try:
            run_chaos(stack, load, disturber, 60 * minutes, concurrency=clients, seed=seed)
            took = time.monotonic() - begun
            _supervise_until(stack, lambda: _serves(stack, models) and not busy(read_gauges(stack)))
        finally:
            _show(result, time.monotonic() - begun)
        memory_row(stack, f"{took / 60:.0f}")
        seen = list(living(stack))
    left = left_over(seen)
    say(f"Processes left: {left}")
    return 1 if result.wrong or result.hangs or left else 0


@contextmanager
def _chaotic_stack(several: bool) -> Iterator[tuple[Stack, dict[str, str]]]:
    """A stack with a scripted model that sees, and the names of its models as `Clients` takes them."""
    more = ["--frontends", "2", "--restarts", "100000"]
    with tempfile.TemporaryDirectory() as name:
        folder, tokenizer = Path(name), TOKENIZERS / "qwen3"
        seeing = split_checkpoint(make_internvl(folder / "whole", tokenizer).path, folder / "seeing")
        if not several:
            with scripted_stack("internvl2_5", seeing, folder / "stack", more=more, clean_stop=False) as one:
                one.play(*rules())
                yield one.stack, dict.fromkeys(("text", "seeing"), one.stack.model_names[0])
            return
        embedder = make_qwen3_embedding(tokenizer, folder / "embedder")
        others = {"embedder": {"model": str(embedder), "max_model_len": 1024}}
        environment = {"VLLM_CPU_KVCACHE_SPACE": "1"}
        with scripted_pair(
            tokenizer, folder / "stack", second=seeing, others=others, more=more, clean_stop=False, **environment
        ) as pair:
            for model in PAIR:
                pair.play(model, *rules())
            yield pair.stack, {"text": PAIR[0], "seeing": PAIR[1], "embedding": "embedder"}


def _show(result: ChaosResult, took: float) -> None:
    say(f"{result.requests} requests in {took:.0f} s: {dict(result.ends.most_common())}")
    say(f"Wrong answers: {len(result.wrong)}. Hangs: {result.hangs}.")
    say("| done | times | pauses | seconds without an answer | longest |\n|---|---:|---:|---:|---:|")
    for done, times in sorted(result.disturbances.items()):
        gaps = result.gaps.get(done, [])
        say(f"| {done} | {times} | {len(gaps)} | {sum(gaps):.0f} | {max(gaps, default=0.0):.0f} |")
    for wrong in result.wrong[:20]:
        say(f"WRONG {wrong}")


def _supervise_until(stack: Stack, condition: Callable[[], bool]) -> None:
    """Restart what dies until the condition holds; raises TimeoutError if it does not come to hold."""
    end = time.monotonic() + RECOVERY_S
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"after {RECOVERY_S:g} s: {busy(read_gauges(stack))}")
        stack.restart_dead()
        time.sleep(0.1)


def _serves(stack: Stack, models: Mapping[str, str]) -> bool:
    """Whether every model answers. models: by what they do."""
    asked = [ping(one, embedding=kind == "embedding") for kind, one in models.items()]
    try:
        return all(httpx.post(stack.url + path, json=body, timeout=30).is_success for path, body in asked)
    except httpx.HTTPError:
        return False
