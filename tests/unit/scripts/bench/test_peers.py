# SPDX-License-Identifier: Apache-2.0
"""The peers, and what each of several engines gets when all are up at once."""

from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from scripts.bench import peers, side_by_side
from scripts.bench.options import parse
from scripts.bench.peers import check_rust, peer_environment, peer_flags
from scripts.bench.run import prepare
from scripts.bench.side_by_side import share
from scripts.bench.target_names import is_peer

GIB = 2**30


def test_names() -> None:
    assert all(map(is_peer, ("vllm-serve", "vllm-serve:1", "vllm-serve:16", "vllm-rust")))
    assert not any(map(is_peer, ("vllm", "vllm-serve:", "vllm-serve:0", "vllm-serve:100", "engine", "vllm-rust:2")))
    assert peer_flags("vllm-serve:4") == ["--api-server-count", "4"]
    assert peer_flags("vllm-serve") == peer_flags("vllm-rust") == []
    assert peer_environment("vllm-rust") == {"VLLM_USE_RUST_FRONTEND": "1"}
    assert peer_environment("vllm-serve:4") == {}


def test_vllm_serve_of_either_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(peers, "version", lambda name: "0.25.0")
    assert peers.vllm_serve("/m")[1:] == ["-P", "-m", "vllm.entrypoints.cli.main", "serve", "/m"]
    monkeypatch.setattr(peers, "version", missing)
    assert peers.vllm_serve("/m")[1:] == ["-P", "-m", "scripts.bench.vllm_serve", "serve", "/m"]


def test_a_missing_front_end_in_rust_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "vllm"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.setattr(peers, "find_spec", lambda name: PathFinder.find_spec(name, [str(tmp_path)]))
    with pytest.raises(ValueError, match=f"no front end in Rust: {package}/vllm-rs is missing"):
        check_rust({})
    program = package / "vllm-rs"
    program.touch()
    with pytest.raises(ValueError, match="is missing"):
        check_rust({"VLLM_RUST_FRONTEND_PATH": "auto"})
    program.chmod(0o755)
    check_rust({})
    with pytest.raises(ValueError, match="/nowhere is missing"):
        check_rust({"VLLM_RUST_FRONTEND_PATH": "/nowhere"})
    check_rust({"VLLM_RUST_FRONTEND_PATH": str(program)})


def test_engines_on_a_cpu_share_the_kv_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "available_memory", lambda: 16 * GIB)
    monkeypatch.setattr(side_by_side, "has_gpu", lambda environment: False)
    part = share(3, GIB, {}, {"VLLM_CPU_KVCACHE_SPACE": "7"})
    assert (part.environment, part.options, part.at_once) == ({"VLLM_CPU_KVCACHE_SPACE": "2"}, {}, True)
    # vLLM takes whole GiB, so at least one.
    assert share(4, GIB, {}, {"VLLM_CPU_KVCACHE_SPACE": "2"}).environment == {"VLLM_CPU_KVCACHE_SPACE": "1"}
    with pytest.raises(ValueError, match=r"5 engines need about 20\.0 GiB .* and 16\.0 GiB is available"):
        share(5, GIB, {}, {"VLLM_CPU_KVCACHE_SPACE": "2"})


def test_engines_on_a_gpu_share_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "has_gpu", lambda environment: True)
    monkeypatch.setattr(side_by_side, "visible_gpus", lambda environment: ["1"])
    monkeypatch.setattr(side_by_side, "_gpu_memory", lambda gpu: (80.0, 79.0))
    part = share(4, 16 * GIB, {"gpu_memory_utilization": 0.9}, {})
    assert (part.options, part.at_once) == ({"gpu_memory_utilization": 0.225}, False)
    # With a cache of a given size vLLM measures nothing.
    assert share(4, 10 * GIB, {"kv_cache_memory_bytes": 4 * GIB}, {}).at_once
    with pytest.raises(ValueError, match=r"each of 4 engines would have 18\.4 GiB of the GPU's 80\.0"):
        share(4, 16 * GIB, {"kv_cache_memory_bytes": 4 * GIB}, {})
    with pytest.raises(ValueError, match="lower it"):
        share(2, GIB, {"gpu_memory_utilization": 1.0}, {})
    monkeypatch.setattr(side_by_side, "_gpu_memory", lambda gpu: None)
    assert share(2, 60 * GIB, {}, {}).options == {"gpu_memory_utilization": 0.46}


def test_the_whole_command_gets_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "has_gpu", lambda environment: True)
    monkeypatch.setattr(side_by_side, "visible_gpus", lambda environment: ["0"])
    monkeypatch.setattr(side_by_side, "_gpu_memory", lambda gpu: (80.0, 80.0))
    line = ["--out", str(tmp_path), "--gpu-memory-utilization", "0.8", "--side-by-side"]
    bench = prepare(parse([*line, "--contenders", "http", "ensemble", "vllm-serve"]))
    assert bench.engine["gpu_memory_utilization"] == 0.4
    assert bench.stack().options.engine["gpu_memory_utilization"] == 0.4
