# SPDX-License-Identifier: Apache-2.0
"""Options of `triton-chat bench`."""

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from scripts.bench.targets import CONTENDERS, TAPS
from scripts.bench.workloads import WORKLOADS

ABOUT = """Load this stack and `vllm serve` in alternating rounds, each started by the benchmark itself; save figures,
a table of ratios and plots.

  triton-chat bench growth --help    cost per token against length and streams, memory over many requests
  triton-chat bench images --help    images per second of a core, beside Hugging Face's and vLLM's processors

contenders: triton-chat (HTTP; http is the same), ensemble and tensorrt_llm (Triton's gRPC, taps of the same start of
this stack), engine (vLLM's offline loop alone), vllm-serve."""
EPILOG = """Any other flag is one of `triton-chat serve`: options of the engine go to the engine of every contender.

examples:
  triton-chat bench --streams 1 8 16 --rounds 3
  triton-chat bench --contenders triton-chat ensemble tensorrt_llm engine vllm-serve --workload summary
  triton-chat bench --scripted 200 --streams 64 256"""
ALIASES = {"http": "triton-chat"}
# Contenders that a scripted engine leaves, as they are taps of this stack.
SCRIPTED = tuple(TAPS)


def positive(text: str) -> int:
    """A count of 1 or more, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is below 1")
    return number


def rate(text: str) -> float:
    """Tokens a second, above 0, for argparse."""
    number = float(text)
    if not 0 < number <= 100_000:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 100000")
    return number


def temperature(text: str) -> float:
    """From 0 to 2, for argparse."""
    number = float(text)
    if not 0 <= number <= 2:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 2")
    return number


def _contender(text: str) -> str:
    name = ALIASES.get(text, text)
    if name not in CONTENDERS:
        raise argparse.ArgumentTypeError(f"unknown contender '{text}'; known: {', '.join(CONTENDERS)}, http")
    return name


def client_processes() -> int:
    """Half of the cores, as the server needs the others, and no more than sixteen."""
    return max(1, min(16, len(os.sched_getaffinity(0)) // 2))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the line; `serve_flags` is what is left of it, for this stack. Exits with a message for what cannot be."""
    parser = argparse.ArgumentParser(
        prog="triton-chat bench",
        description=ABOUT,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", help="checkpoint folder, hub id or prepared model (default: the packaged SmolLM2)")
    add("--contenders", nargs="+", type=_contender, metavar="NAME", help="default: triton-chat vllm-serve")
    add("--streams", nargs="+", type=positive, default=[1, 8, 16], help="concurrencies (default: 1 8 16)")
    add("--rounds", type=positive, default=2, help="alternating rounds, of which medians are told (default: 2)")
    add("--workload", choices=WORKLOADS, default="chat", help=_workloads())
    add("--prompt-tokens", type=positive, help="instead of the workload's")
    add("--output-tokens", type=positive, help="instead of the workload's")
    add("--temperature", type=temperature, default=0.0, help="0 is greedy, the default; above it for random weights")
    add("--requests-per-stream", type=positive, default=4, help="measured requests of each stream (default: 4)")
    add("--warmup", type=positive, default=1, help="requests of each stream before those (default: 1)")
    add("--scripted", type=rate, metavar="RATE", help="no model: an engine that writes RATE tokens a second per stream")
    add(
        "--client-processes",
        type=positive,
        default=client_processes(),
        help="processes that ask (default: half of the cores, at most 16; %(default)s here)",
    )
    add("--vllm-serve-flags", default="", metavar="FLAGS", help="more flags for `vllm serve` alone, as one word")
    add("--out", type=Path, default=Path(".cache/bench"), help="folder for results and logs (default: .cache/bench)")
    options, options.serve_flags = parser.parse_known_args(arguments)
    options.line = shlex.join(["triton-chat", "bench", *arguments])
    try:
        _agree(options)
    except ValueError as error:
        parser.error(str(error))
    return options


def _workloads() -> str:
    return "; ".join(f"{name}: {workload.about}" for name, workload in WORKLOADS.items())


def _agree(options: argparse.Namespace) -> None:
    """Complete the contenders; raises ValueError for options that contradict each other."""
    stray = next((flag for flag in options.serve_flags if not flag.startswith("-")), None)
    if options.serve_flags and stray == options.serve_flags[0]:
        raise ValueError(f"unknown word '{stray}': growth and images are what may come first, a model goes by --model")
    pictures = WORKLOADS[options.workload].pictures
    if options.contenders is None:
        tap = "ensemble" if pictures else "tensorrt_llm"
        options.contenders = ["triton-chat", tap if options.scripted else "vllm-serve"]
    options.contenders = list(dict.fromkeys(options.contenders))
    options.streams = sorted(set(options.streams))
    options.vllm_serve_flags = shlex.split(options.vllm_serve_flags)
    left_out = [name for name in options.contenders if name not in SCRIPTED]
    if options.scripted and left_out:
        raise ValueError(f"--scripted replaces the engine of this stack, and {' and '.join(left_out)} has none of it")
    blind = [name for name in options.contenders if name in ("engine", "tensorrt_llm")]
    if pictures and blind:
        raise ValueError(f"{' and '.join(blind)} takes ids alone: the workload {options.workload} is for the others")
