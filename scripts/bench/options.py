# SPDX-License-Identifier: Apache-2.0
"""Options of `triton-chat bench`."""

import argparse
import math
import os
import shlex
from collections.abc import Sequence
from pathlib import Path

from common.command_line import Parser, checked
from scripts.bench.arrivals import Arrivals
from scripts.bench.target_names import ENDPOINTS, TARGETS, VLLM_SERVE, is_peer
from scripts.bench.workloads import WORKLOADS

ABOUT = """Load this stack and `vllm serve` in alternating rounds, started by the benchmark itself; save figures, tables
of ratios and plots.

  triton-chat bench growth --help    cost per token against length and streams, memory over many requests
  triton-chat bench images --help    images per second of a core, beside Hugging Face's and vLLM's processors
  triton-chat bench answers --help   time per token of reading an answer, in every format of tool calls

contenders: triton-chat (HTTP; http is the same), ensemble and tensorrt_llm (Triton's gRPC endpoints of the same running
stack), engine (only vLLM's offline loop), and the peers: vllm-serve (`vllm serve` with one API server), vllm-serve:N
(with N of them, such as vllm-serve:4), vllm-rust (with vLLM's front end in Rust)."""
EPILOG = """Any other flag is one of `triton-chat serve`: options of the engine go to the engine of every contender.

examples:
  triton-chat bench --streams 1 8 16 --rounds 3
  triton-chat bench --contenders triton-chat ensemble tensorrt_llm engine vllm-serve --workload summary
  triton-chat bench --side-by-side --contenders triton-chat vllm-serve vllm-serve:4 vllm-rust --streams 1 64 256
  triton-chat bench --side-by-side --request-rate inf 4 --num-prompts 64
  triton-chat bench --scripted 200 --streams 64 256"""
ALIASES = {"http": "triton-chat"}
# Targets that can be measured with the scripted engine: the endpoints of this stack.
SCRIPTED = tuple(ENDPOINTS)


def parse_with_serve_flags(parser: argparse.ArgumentParser, arguments: Sequence[str]) -> argparse.Namespace:
    """Parse; unknown flags become `serve_flags`, for `triton-chat serve`.

    The parser's own flags become `own_flags`, and the whole command `line`.
    """
    options, serve_flags = parser.parse_known_args(arguments)
    options.serve_flags = serve_flags
    options.own_flags = tuple(parser._option_string_actions)
    options.line = shlex.join([*parser.prog.split(), *arguments])
    return options


@checked
def positive(text: str) -> int:
    """A count of 1 or more, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"must be a whole number above 0, not '{text}'")
    return int(text)


@checked
def rate(text: str) -> float:
    """Tokens a second, above 0, for argparse."""
    return _between(text, 0.001, 100_000)


@checked
def temperature(text: str) -> float:
    """From 0 to 2, for argparse."""
    return _between(text, 0, 2)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _between(text: str, low: float, high: float) -> float:
    number = _number(text)
    if not low <= number <= high:
        raise ValueError(f"must be a number from {low:g} to {high:g}, not '{text}'")
    return number


@checked
def request_rate(text: str) -> float:
    """Requests a second, above 0; `inf` for all at once. For argparse."""
    number = _number(text)
    if not number > 0:
        raise ValueError(f"must be a number above 0 or inf, not '{text}'")
    return number


@checked
def burstiness(text: str) -> float:
    """Above 0 and finite, for argparse."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise ValueError(f"must be a number above 0, not '{text}'")
    return number


def _target(text: str) -> str:
    name = ALIASES.get(text, text)
    if name not in ENDPOINTS and name != "engine" and not is_peer(name):
        raise argparse.ArgumentTypeError(f"unknown contender '{text}'; known: {', '.join(TARGETS)}, http")
    return name


def client_processes() -> int:
    """The default number of client processes: half of the cores, at most 16; the server needs the others."""
    return max(1, min(16, len(os.sched_getaffinity(0)) // 2))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line, or exit with a message; unknown flags become `serve_flags`, for this stack."""
    parser = Parser(
        prog="triton-chat bench",
        description=ABOUT,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model", help="checkpoint folder, hub id or prepared model (default: the packaged SmolLM2)")
    targets = "default: triton-chat vllm-serve"
    add("--contenders", dest="targets", nargs="+", type=_target, metavar="NAME", help=targets)
    add(
        "--side-by-side",
        action="store_true",
        help="all contenders up at once, each on a share of the memory, and asked in turn: on a machine whose speed "
        "changes, only such ratios hold",
    )
    add("--streams", nargs="+", type=positive, help="concurrencies of a closed loop (default: 1 8 16)")
    add(
        "--request-rate",
        nargs="+",
        type=request_rate,
        default=[],
        metavar="RATE",
        help="requests per second instead of a closed loop, or beside one with --streams: steady arrivals, or inf for "
        "a burst, all of them at once",
    )
    add("--burstiness", type=burstiness, default=1.0, help="of arrivals: 1 (default) is Poisson, less is more uneven")
    add("--num-prompts", nargs="+", type=positive, default=[64], help="requests at each --request-rate (default: 64)")
    add("--rounds", type=positive, default=2, help="alternating rounds; medians are over these (default: 2)")
    add("--workload", choices=WORKLOADS, default="chat", help=_workloads())
    add("--prompt-tokens", type=positive, help="instead of the workload's")
    add("--output-tokens", type=positive, help="instead of the workload's")
    add("--temperature", type=temperature, default=0.0, help="0 (default) is greedy; use more for random weights")
    add("--requests-per-stream", type=positive, default=4, help="measured requests of each stream (default: 4)")
    add(
        "--min-requests",
        type=positive,
        default=1,
        help="measured requests of a whole load at least, so that few streams send more each (default: 1)",
    )
    add("--warmup", type=positive, default=1, help="requests of each stream before those (default: 1)")
    add(
        "--beside-pictures",
        type=int,
        default=0,
        metavar="STREAMS",
        help="streams that ask about pictures all the while, beside those that are measured (default: 0)",
    )
    add(
        "--waterfall",
        type=positive,
        metavar="REQUESTS",
        help="afterwards send a burst of so many requests to this stack with tracing on, in each round, and report the "
        "time of requests and responses by hop",
    )
    add("--scripted", type=rate, metavar="RATE", help="no model: an engine that writes RATE tokens a second per stream")
    add(
        "--client-processes",
        type=positive,
        default=client_processes(),
        help="processes that ask (default: half of the cores, at most 16; %(default)s here)",
    )
    add("--vllm-serve-flags", default="", metavar="FLAGS", help="more flags, only for `vllm serve`, as one word")
    add("--out", type=Path, default=Path(".cache/bench"), help="folder for results and logs (default: .cache/bench)")
    options = parse_with_serve_flags(parser, arguments)
    try:
        _agree(options)
    except ValueError as error:
        parser.error(str(error))
    return options


def _workloads() -> str:
    return "; ".join(f"{name}: {workload.about}" for name, workload in WORKLOADS.items())


def _agree(options: argparse.Namespace) -> None:
    """Fill in the default targets; raises ValueError if options contradict each other."""
    stray = next((flag for flag in options.serve_flags if not flag.startswith("-")), None)
    if options.serve_flags and stray == options.serve_flags[0]:
        raise ValueError(f"unknown word '{stray}': only growth and images may come first; name a model with --model")
    pictures = WORKLOADS[options.workload].pictures
    if options.targets is None:
        endpoint = "ensemble" if pictures else "tensorrt_llm"
        options.targets = ["triton-chat", endpoint if options.scripted else VLLM_SERVE]
    options.targets = list(dict.fromkeys(options.targets))
    if options.streams is None and not options.request_rate:
        options.streams = [1, 8, 16]
    options.loads = [Arrivals(count) for count in sorted(set(options.streams or ()))] + [
        Arrivals(count, rate, options.burstiness)
        for rate in dict.fromkeys(options.request_rate)
        for count in sorted(set(options.num_prompts))
    ]
    if options.request_rate and WORKLOADS[options.workload].turns > 1:
        raise ValueError(f"the workload {options.workload} has conversations, whose requests follow each other")
    options.vllm_serve_flags = shlex.split(options.vllm_serve_flags)
    left_out = [name for name in options.targets if name not in SCRIPTED]
    if options.scripted and left_out:
        raise ValueError(f"--scripted replaces the engine of this stack, and {' and '.join(left_out)} has none of it")
    if options.waterfall and "triton-chat" not in options.targets:
        raise ValueError("--waterfall is for triton-chat, which is not among the --contenders")
    ids_only = [name for name in options.targets if name in ("engine", "tensorrt_llm")]
    if options.beside_pictures < 0:
        raise ValueError(f"--beside-pictures {options.beside_pictures} is below 0")
    if (pictures or options.beside_pictures) and ids_only:
        raise ValueError(f"{' and '.join(ids_only)} takes only ids: pictures are for the others")
