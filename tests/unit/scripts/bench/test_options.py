# SPDX-License-Identifier: Apache-2.0
"""The benchmark's command line: what it accepts, and what it refuses before a start."""

import math
from pathlib import Path

import pytest

from scripts.bench.arrivals import Arrivals
from scripts.bench.options import parse
from scripts.cli.main import main


def test_defaults() -> None:
    options = parse([])
    loads = [Arrivals(1), Arrivals(8), Arrivals(16)]
    assert (options.targets, options.loads, options.rounds) == (["triton-chat", "vllm-serve"], loads, 2)
    assert parse(["--scripted", "50"]).targets == ["triton-chat", "tensorrt_llm"]


def test_peers_and_loads() -> None:
    peers = ["vllm-serve", "vllm-serve:4", "vllm-rust"]
    line = ["--contenders", "http", *peers, "--request-rate", "inf", "2.5", "--num-prompts", "64", "8"]
    options = parse([*line, "--burstiness", "0.5"])
    assert options.targets == ["triton-chat", *peers]
    inf = math.inf
    assert [(load.count, load.rate) for load in options.loads] == [(8, inf), (64, inf), (8, 2.5), (64, 2.5)]
    assert {load.burstiness for load in options.loads} == {0.5}
    assert parse(["--streams", "4", "--request-rate", "inf"]).loads == [Arrivals(4), Arrivals(64, inf)]


def test_unknown_flags_go_to_the_stack() -> None:
    line = ["--contenders", "http", "engine", "http", "--streams", "64", "1", "--max-num-seqs", "64", "--dtype=float16"]
    options = parse([*line, "--vllm-serve-flags", "--api-server-count 2"])
    assert options.targets == ["triton-chat", "engine"]
    assert options.loads == [Arrivals(1), Arrivals(64)]
    assert options.serve_flags == ["--max-num-seqs", "64", "--dtype=float16"]
    assert options.vllm_serve_flags == ["--api-server-count", "2"]
    assert options.line.startswith("triton-chat bench --contenders http engine")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "--contenders sglang",
            "unknown contender 'sglang'; known: triton-chat, ensemble, tensorrt_llm, engine, vllm-serve, "
            "vllm-serve:N, vllm-rust, http",
        ),
        ("--contenders vllm-serve:0", "unknown contender 'vllm-serve:0'"),
        ("--contenders vllm-serve --waterfall 8", "--waterfall is for triton-chat"),
        ("--request-rate 0", "--request-rate must be a number above 0 or inf, not '0'"),
        ("--request-rate nan", "--request-rate must be a number above 0 or inf, not 'nan'"),
        ("--request-rate 1 --burstiness inf", "--burstiness must be a number above 0, not 'inf'"),
        ("--request-rate 1 --num-prompts 0", "--num-prompts must be a whole number above 0, not '0'"),
        ("--request-rate 1 --workload turns", "has conversations"),
        ("--streams 0", "--streams must be a whole number above 0, not '0'"),
        ("--streams 1 x", "--streams must be a whole number above 0, not 'x'"),
        ("--rounds 0", "--rounds must be a whole number above 0, not '0'"),
        ("--temperature 3", "--temperature must be a number from 0 to 2, not '3'"),
        ("--scripted 0", "--scripted must be a number from 0.001 to 100000, not '0'"),
        ("--workload essay", "--workload must be one of "),
        ("--scripted 9 --contenders http vllm-serve", "--scripted replaces the engine of this stack"),
        ("--workload image --contenders http engine", "engine takes only ids"),
        ("smollm2 --streams 1", "unknown word 'smollm2'"),
        ("growth --requests 0", "--requests must be a whole number above 0"),
        ("growth --lengths", "expected at least one argument"),
        ("images --pictures many", "--pictures must be a whole number above 0"),
        ("images --dtype float16", "unknown option --dtype"),
    ],
)
def test_invalid_options_are_refused_with_a_message(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *line.split()])
    assert ended.value.code == 2
    output = capsys.readouterr()
    assert words in output.err
    assert not output.out


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("--model /nowhere", 1, "there is no folder /nowhere"),
        ("growth --model /nowhere", 1, "there is no folder /nowhere"),
        (
            "--scripted 9 --workload document --max-model-len 4k",
            2,
            "needs a context of 32128 tokens, and there are 4000",
        ),
        ("--scripted 9 --workload mixed --output-tokens 3", 2, "has several lengths of its own"),
        ("--scripted 9 --workload image", 2, "takes no pictures"),
        ("--scripted 9 --prompt-tokens 5", 2, "no prompt of exactly 5 tokens"),
    ],
)
def test_what_cannot_be_measured_is_an_error(
    line: str, status: int, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *line.split(), "--out", str(tmp_path)]) == status
    assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("results.*"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--streems 1", "unknown option --streems; did you mean --streams?"),
        ("growth --lenghts 1", "unknown option --lenghts; did you mean --lengths?"),
        ("--dtype=hafl", "did you mean half?"),
        ("--frobnicate", "unknown option --frobnicate"),
    ],
)
def test_flags_that_neither_the_benchmark_nor_the_stack_knows(
    line: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scripts.bench.run.measure", lambda options: pytest.fail("it was begun"))
    assert main(["bench", *line.split()]) in (1, 2)
    assert words in capsys.readouterr().err
