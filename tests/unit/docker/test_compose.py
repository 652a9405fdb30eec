# SPDX-License-Identifier: Apache-2.0
"""The compose files as Docker Compose itself reads them: `docker compose config`."""

import functools
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from frontend.settings import Settings
from scripts.launcher.options import parse_options
from scripts.launcher.stack import FRONTEND_MARGIN_S, TRITON_GRACE_S
from tests.support.containers import (
    DOCKER,
    METRICS_PORT,
    PORT,
    ROOT,
    VARIABLES,
    check_flags,
    run_tool,
    shutdown_seconds,
)

FOLDER = DOCKER / "compose"
STACKS = ("cpu", "one-gpu", "replicas", "split", "tensor-parallel", "trtllm")
GIVEN = {"MODELS_DIR": "/srv/models", "MODEL": "Qwen3-8B", "ENGINES_DIR": "/srv/engines", "ENGINE_NAME": "Qwen3-8B"}


@functools.cache
def config(name: str, **given: str) -> dict[str, Any]:
    """The whole model of a file with everything that it includes and extends."""
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"} | GIVEN | given
    command = (
        "-f",
        FOLDER / f"{name}.yaml",
        "--env-file",
        os.devnull,
        "--profile",
        "watch",
        "config",
        "--format",
        "json",
    )
    done = run_tool("docker-compose", *command, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def ours(name: str, **given: str) -> dict[str, Any]:
    """The services that run an image of this project."""
    return {
        key: service
        for key, service in config(name, **given)["services"].items()
        if service["image"].startswith("triton-chat:")
    }


def seconds(text: str) -> int:
    minutes, rest = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", text).groups()
    return 60 * int(minutes or 0) + int(rest or 0)


def test_every_file_is_checked() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {*STACKS, "common", "stack"}


@pytest.mark.parametrize("name", STACKS)
def test_containers_may_do_little(name: str) -> None:
    for key, service in ours(name).items():
        assert service["user"] == "1000:1000" and service["cap_drop"] == ["ALL"], key
        assert service["security_opt"] == ["no-new-privileges:true"] and service["init"]
        assert service.get("read_only", False) == (name != "cpu")
        assert service["restart"] == "unless-stopped"
        assert [secret["source"] for secret in service["secrets"]] == ["api_keys"]
        assert (ROOT / service["build"]["dockerfile"]).is_file()
        assert service["image"].partition(":")[2] == service["build"]["dockerfile"].rpartition(".")[2]
        for volume in service.get("volumes", ()):
            assert volume.get("read_only") or volume["target"] == "/cache"
            assert volume["type"] != "bind" or not volume["bind"].get("create_host_path", True)


@pytest.mark.parametrize("name", STACKS)
def test_only_the_api_is_published_and_on_loopback(name: str) -> None:
    published = [
        (key, port["target"]) for key, service in config(name)["services"].items() for port in service.get("ports", ())
    ]
    assert all(
        port["host_ip"] == "127.0.0.1"
        for service in config(name)["services"].values()
        for port in service.get("ports", ())
    )
    entry = "balancer" if name == "replicas" else "stack"
    watching = {("grafana", 3000), ("prometheus", 9090), ("traces", 16686)}
    assert {*published} == {(entry, PORT)} | watching


@pytest.mark.parametrize("name", STACKS)
def test_options_and_variables_are_real(name: str) -> None:
    for service in ours(name).values():
        command = service["command"] or []
        if "entrypoint" not in service or service["entrypoint"] is None or "tritonserver" not in service["entrypoint"]:
            check_flags(command)
            if command:
                options = parse_options(command)
                assert options.host == options.triton_host == "0.0.0.0"
                assert options.port == PORT and options.verbose
        own = {key for key in service["environment"] if key.startswith("TRITON_CHAT_")}
        assert own <= VARIABLES, own - VARIABLES
        Settings.load([], {key: value for key, value in service["environment"].items() if "KEYS_FILE" not in key})


@pytest.mark.parametrize("name", STACKS)
def test_stopping_waits_for_the_drain(name: str) -> None:
    for service in ours(name).values():
        delay, grace = (shutdown_setting(service, one) for one in ("shutdown_delay", "grace_period"))
        assert seconds(service["stop_grace_period"]) > delay + grace + FRONTEND_MARGIN_S + TRITON_GRACE_S
        if name == "replicas":
            assert [delay, grace, seconds(service["stop_grace_period"])] == shutdown_seconds(column=2)
            assert delay >= 2 * noticed_after_s()


def shutdown_setting(service: dict[str, Any], name: str) -> float:
    return float(service["environment"].get(f"TRITON_CHAT_{name.upper()}", getattr(Settings(), name)))


def noticed_after_s() -> float:
    """The time after which HAProxy knows that a stack is not ready: the check that finds it, and a second one."""
    text = (DOCKER / "haproxy" / "haproxy.cfg").read_text(encoding="utf-8")
    period, quick, falls = re.search(r"check inter (\d+)s fastinter (\d+)ms fall (\d+)", text).groups()
    return int(period) + int(quick) / 1000 * (int(falls) - 1)


def gpus(service: dict[str, Any]) -> Any:
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia" and device["capabilities"] == ["gpu"]
    return device.get("count") or device["device_ids"]


def test_gpus() -> None:
    assert gpus(ours("one-gpu")["stack"]) == 1
    assert gpus(ours("trtllm", GPUS="4")["stack"]) == 4
    assert [gpus(service) for service in ours("replicas").values()] == [["0"], ["1"]]
    several = ours("tensor-parallel", GPUS="4")["stack"]
    assert gpus(several) == 4
    assert parse_options(several["command"]).engine == {"tensor_parallel_size": 4}
    for service in (ours("one-gpu")["stack"], several):
        assert int(service["shm_size"]) >= 2**32


def test_an_engine_is_chosen_by_a_variable() -> None:
    service = ours("one-gpu", ENGINE="trtllm")["stack"]
    assert service["image"] == "triton-chat:trtllm"
    assert service["build"]["args"] == {"TRITON": "26.07"}


def test_a_model_must_be_named() -> None:
    environment = {"PATH": os.environ["PATH"], "MODELS_DIR": "/srv/models"}
    done = run_tool(
        "docker-compose", "-f", FOLDER / "one-gpu.yaml", "--env-file", os.devnull, "config", env=environment
    )
    assert done.returncode != 0 and "the folder of the checkpoint below MODELS_DIR" in done.stderr


def test_the_frontend_alone_finds_its_tritonserver() -> None:
    services = ours("split")
    assert services["stack"]["image"] == "triton-chat:frontend"
    host, port = services["stack"]["environment"]["TRITON_CHAT_TRITON_URL"].split(":")
    assert host == "engine" and int(port) == 8001
    assert services["stack"]["depends_on"]["engine"]["condition"] == "service_healthy"
    assert services["engine"]["command"][0] == "--model-repository=/opt/triton-chat/model_repository"
    place = re.findall(r"^WORKDIR (.*)$", (DOCKER / "Dockerfile.vllm").read_text(encoding="utf-8"), re.MULTILINE)[-1]
    assert place == "/opt/triton-chat"


@pytest.mark.parametrize("name", STACKS)
def test_prometheus_finds_every_part(name: str) -> None:
    jobs = yaml.safe_load((DOCKER / "prometheus" / "compose.yml").read_text(encoding="utf-8"))["scrape_configs"]
    found = {job["job_name"]: (job["dns_sd_configs"][0]["names"][0], job["dns_sd_configs"][0]["port"]) for job in jobs}
    assert found["triton-chat-frontend"] == ("stack", PORT)
    assert found["triton-chat-triton"] == ("triton", METRICS_PORT)
    names: dict[str, set[str]] = {}
    for key, service in ours(name).items():
        for alias in {key, *((service["networks"]["inside"] or {}).get("aliases") or ())}:
            names.setdefault(alias, set()).add(key)
    frontends = set(ours(name)) - {"engine"}
    tritons = {key for key, service in ours(name).items() if service["image"] != "triton-chat:frontend"}
    assert names["stack"] == frontends and names["triton"] == tritons


def test_the_example_names_every_variable() -> None:
    documented = set(re.findall(r"^(\w+)=", (FOLDER / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    read = {
        name for path in FOLDER.glob("*.yaml") for name in re.findall(r"\$\{(\w+)", path.read_text(encoding="utf-8"))
    }
    assert documented == read


def test_files_that_are_mounted_are_there() -> None:
    for name in STACKS:
        for service in config(name)["services"].values():
            for volume in service.get("volumes", ()):
                if volume["type"] == "bind" and not volume["source"].startswith("/srv/"):
                    assert Path(volume["source"]).exists(), volume["source"]
