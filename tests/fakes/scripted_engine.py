# SPDX-License-Identifier: Apache-2.0
"""A fake engine for the real `tensorrt_llm` model: it plays scripts instead of running a network.

The engine option `script` names the file of rules, see script.py.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from script import Rule, find_rule, pieces

from common.errors import RequestError
from common.finish_reason import FinishReason
from common.tokenizer import ChatTokenizer
from engines.engine import STATISTICS, Generation, Put, Tokens
from engines.options import EngineOptions


class ScriptedEngine:
    """Implements the `Engine` protocol of the `tensorrt_llm` model."""

    def __init__(self, options: EngineOptions) -> None:
        self._script = Path(options.passed["script"])
        self._tokenizer = ChatTokenizer.load(Path(options.model_path))
        # The option `slots`: scripts that are played at once; more wait for their turn, as in a real engine.
        self._most = int(options.passed.get("slots", 2**31))
        self._slots = asyncio.Semaphore(self._most)
        self._inside = 0

    async def start(self) -> None:
        """Nothing to load."""

    async def generate(self, generation: Generation, put: Put) -> None:
        """Play the rule that the prompt matches, never more than max_tokens ids."""
        rule = self._rule(generation)
        parts = list(pieces(self._ids(rule, generation), rule.sizes))
        self._inside += 1
        try:
            async with self._slots:
                for index, ids in enumerate(parts):
                    if rule.error_after == index:
                        raise RequestError("scripted failure", kind="internal")
                    await asyncio.sleep(0.0 if rule.hurry and Path(rule.hurry).exists() else rule.delay_s)
                    tokens = _with_logprobs(Tokens(ids, cached_tokens=0), generation)
                    if index == len(parts) - 1:
                        tokens.finish = _finish(rule, generation, ids)
                    put(tokens)
        finally:
            self._inside -= 1

    def statistics(self) -> Mapping[str, float]:
        """`running` and `waiting` scripts; there is no cache."""
        running = min(self._inside, self._most)
        return dict.fromkeys(STATISTICS, 0.0) | {"running": running, "waiting": self._inside - running}

    def shutdown(self) -> None:
        """Nothing to stop."""

    def _rule(self, generation: Generation) -> Rule:
        prompt = self._tokenizer.backend.decode(generation.prompt_ids, skip_special_tokens=False)
        rule = find_rule(self._script, prompt)
        if rule is None:
            raise RequestError(f"no rule of the script matches the prompt: {prompt[-200:]}")
        return rule

    def _ids(self, rule: Rule, generation: Generation) -> list[int]:
        ids = rule.answer(self._tokenizer, generation.max_tokens)
        if rule.finish == "END_ID" and generation.end_id >= 0 and not rule.repeat:
            ids = [*ids, generation.end_id]
        return ids[: generation.max_tokens]


def _finish(rule: Rule, generation: Generation, ids: list[int]) -> FinishReason:
    ended = rule.finish != "END_ID" or generation.end_id < 0 or ids[-1] == generation.end_id
    return FinishReason[rule.finish] if ended and not rule.repeat else FinishReason.LENGTH


def _with_logprobs(tokens: Tokens, generation: Generation) -> Tokens:
    """Made-up but recognisable log-probabilities: -0.5 for the token, -1, -2, ... for its alternatives."""
    if generation.return_log_probs:
        tokens.logprobs = [-0.5] * len(tokens.ids)
        if generation.top_logprobs:
            ranks = range(1, generation.top_logprobs)
            tokens.top_ids = [[token, *(token + rank for rank in ranks)] for token in tokens.ids]
            tokens.top_logprobs = [[-0.5, *(-float(rank) for rank in ranks)] for _ in tokens.ids]
    return tokens
