# SPDX-License-Identifier: Apache-2.0
"""Train vision tower, projector and adapter for a given time, on pictures that are drawn meanwhile.

Writes to --out: vision.safetensors and language.safetensors every minute and at the end, evaluation.md at the end, and
log.txt.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, TextIO

import torch
from torch import Tensor

from models.demo_vlm.training import evaluate, instructions, text_chats
from models.demo_vlm.training.dialogue import Encoder
from models.demo_vlm.training.feed import Batch, Feed, loader
from models.demo_vlm.training.model import (
    DemoModel,
    answer_loss,
    load_weights,
    patch_loss,
    read_weights,
    save_weights,
    weights,
)

_PATCH_WEIGHT = 0.2
_WARM_UP_STEPS = 100
_TEXT_EVERY, _TEXT_BATCH, _TEXT_WEIGHT = 4, 32, 2.0
_SAVE_SECONDS, _LOG_SECONDS = 60.0, 10.0


class Log:
    """Writes lines with the seconds since the start to the terminal and to a file."""

    def __init__(self, file: TextIO, start: float) -> None:
        self._file, self._start = file, start

    def __call__(self, line: str) -> None:
        stamped = f"{time.monotonic() - self._start:6.1f} s  {line}\n"
        for stream in (sys.stdout, self._file):
            stream.write(stamped)
            stream.flush()


class Trainer:
    """A training run of a given time."""

    def __init__(
        self, options: argparse.Namespace, batches: Iterator[Batch], feed: Feed, log: Log, start: float
    ) -> None:
        self._options, self._batches, self._feed, self._log, self._start = options, batches, feed, log, start
        self._device = torch.device(options.device)
        self._rng = Random(options.seed)  # nosec B311 # no secret is drawn
        self.encoder = Encoder(options.llm)
        self.model = DemoModel(options.llm).to(self._device)
        if options.init:
            load_weights(self.model, read_weights(options.init))
        self._dialogues = text_chats.answered(self.model, self.encoder, instructions.training()[: options.chats])
        self._unseen = text_chats.answered(self.model, self.encoder, instructions.unseen()[: options.chats])
        log(f"{len(self._dialogues)} chats answered by the original model")
        self._optimizer = self._make_optimizer()
        if options.compile:
            self._compile()
        self._sums: dict[str, Tensor | float] = {}

    def _make_optimizer(self) -> torch.optim.Optimizer:
        options, groups = self._options, []
        for rate, module in ((options.vision_rate, self.model.vision), (options.language_rate, self.model.language)):
            trained = [item for item in module.parameters() if item.requires_grad]
            for decay, some in ((0.05, [p for p in trained if p.ndim > 1]), (0.0, [p for p in trained if p.ndim < 2])):
                groups.append(
                    {"params": some, "rate": rate, "weight_decay": decay if rate == options.vision_rate else 0.0}
                )
        groups.append({"params": list(self.model.heads.parameters()), "rate": options.vision_rate, "weight_decay": 0.0})
        groups = [group for group in groups if group["params"]]
        return torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=self._device.type == "cuda")

    def _compile(self) -> None:
        # Layer by layer: all layers share one compiled graph with dynamic sizes.
        for layer in self._layers():
            layer.compile(dynamic=True)

    def _layers(self) -> list[Any]:
        return [*self.model.language.model.layers, *self.model.vision.layers]

    def run(self) -> None:
        """Train until only the time for the evaluation is left."""
        end = self._start + self._options.seconds - self._options.reserve
        begin = saved = logged = time.monotonic()
        step = samples = before = 0
        while (now := time.monotonic()) < end:
            done = (now - begin) / (end - begin)
            self._feed.progress.value = self._options.progress_from + (1 - self._options.progress_from) * done
            samples += self._step(step, done)
            step += 1
            if now - logged > _LOG_SECONDS:
                self._report(step, samples, (samples - before) / (now - logged))
                logged, before = now, samples
            if now - saved > _SAVE_SECONDS:
                save_weights(self.model, self._options.out)
                saved = now
        self._report(step, samples, samples / (time.monotonic() - begin))

    def _step(self, step: int, done: float) -> int:
        for group in self._optimizer.param_groups:
            group["lr"] = group["rate"] * min(
                (step + 1) / _WARM_UP_STEPS, 0.02 + 0.98 * math.cos(done * math.pi / 2) ** 2
            )
        waiting = time.monotonic()
        batch = next(self._batches).to(self._device)
        self._add("waited", time.monotonic() - waiting)
        with torch.autocast(self._device.type, torch.bfloat16):
            logits, patch_logits = self.model.logits(batch)
        loss = answer_loss(logits, batch.targets)
        patches = patch_loss(patch_logits, batch.labels) if patch_logits is not None else loss.new_zeros(())
        torch.autograd.backward(loss + _PATCH_WEIGHT * patches)
        self._add("answers", loss.detach())
        self._add("right", (logits.detach().argmax(-1) == batch.targets).float().mean())
        self._add("patches", patches.detach())
        if step % _TEXT_EVERY == 0:
            chat = text_chats.pick(self._rng, self.encoder, self._dialogues, _TEXT_BATCH).to(self._device)
            drift, _ = text_chats.drift(self.model, chat)
            torch.autograd.backward(_TEXT_WEIGHT * drift)
            self._add("drift", _TEXT_EVERY * drift.detach())
        torch.nn.utils.clip_grad_norm_((p for p in self.model.parameters() if p.grad is not None), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._add("steps", 1.0)
        return len(batch.ids)

    def _add(self, name: str, value: Tensor | float) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + value

    def _report(self, step: int, samples: int, rate: float) -> None:
        sums = {name: float(value) for name, value in self._sums.items()}
        steps = sums.pop("steps", 0.0) or 1.0
        means = "  ".join(f"{name} {value / steps:.4f}" for name, value in sums.items())
        memory = torch.cuda.max_memory_allocated() / 2**30 if self._device.type == "cuda" else 0.0
        self._log(f"step {step}  samples {samples}  {rate:.0f}/s  {memory:.0f} GiB  {means}")
        self._sums = {}
        if not math.isfinite(sums.get("answers", 0.0)):
            raise RuntimeError("the loss is not finite; the weights last saved are good")

    def evaluate(self, asked: Iterator[list[evaluate.Case]]) -> str:
        """Evaluate within the remaining time; returns the table, mistakes and chats as text."""
        # Evaluate the saved weights, which are rounded to bf16.
        load_weights(self.model, weights(self.model))
        self.model.eval()
        for layer in self._layers():
            # The compiled layers do not support a KV cache.
            layer._compiled_call_impl = None
        deadline = self._start + self._options.seconds - 15
        with torch.no_grad():
            batch = text_chats.pick(self._rng, self.encoder, self._unseen, len(self._unseen)).to(self._device)
            drift, same = text_chats.drift(self.model, batch)
        lines = [f"chats without pictures: KL {float(drift):.4f}, same likeliest token {100 * float(same):.1f} %", ""]
        lines += [f"> {answer}" for answer in evaluate.chats(self.model, self.encoder)]
        results = evaluate.run(self.model, self.encoder, asked, deadline)
        return "\n".join([evaluate.table(results), *lines, "", evaluate.mistakes(results, 60)]) + "\n"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llm", type=Path, required=True, help="the language model's folder")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=500.0, help="of the whole run, including the evaluation")
    parser.add_argument("--reserve", type=float, default=60.0, help="seconds kept for the evaluation")
    parser.add_argument("--init", type=Path, help="weights to continue from: a file or the folder of a run")
    parser.add_argument("--progress-from", type=float, default=0.0, help="1: no simple pictures first")
    parser.add_argument("--tokens", type=int, default=32768, help="of one step, including padding")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--vision-rate", type=float, default=1e-3)
    parser.add_argument("--language-rate", type=float, default=1e-3)
    parser.add_argument("--samples", type=int, default=1000, help="of the evaluation")
    parser.add_argument("--chats", type=int, default=1000, help="maximum number of chats without pictures")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    return parser.parse_args(arguments)


def main() -> int:
    """Train, save the weights and evaluate them."""
    start, options = time.monotonic(), parse()
    options.out.mkdir(parents=True, exist_ok=True)
    feed = Feed(options.llm, options.tokens, options.seed)
    # Fork the workers before anything uses the GPU.
    batches = iter(loader(feed, options.workers, options.device == "cuda"))
    asked = evaluate.loader(options.llm, options.samples, min(options.workers, 8))
    with (options.out / "log.txt").open("w", encoding="utf-8") as file:
        log = Log(file, start)
        trainer = Trainer(options, batches, feed, log, start)
        try:
            trainer.run()
        finally:
            save_weights(trainer.model, options.out)
        report = trainer.evaluate(asked)
        (options.out / "evaluation.md").write_text(report, encoding="utf-8")
        log(f"done\n{report}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
