# SPDX-License-Identifier: Apache-2.0
"""The Helm chart: Helm's own lint and rendering, Kubernetes' schemas, and what the values promise."""

import functools
import json
import os
import subprocess
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from frontend import __version__
from frontend.healthcheck import address
from frontend.telemetry import metrics
from scripts.launcher.options import parse_options
from scripts.launcher.stack import FRONTEND_MARGIN_S, TRITON_GRACE_S
from tests.support.containers import DOCKER, METRICS_PORT, PORT, check_flags, run_tool, shutdown_seconds
from tests.support.monitoring import dashboard

CHART = DOCKER / "helm" / "triton-chat"
RENDER = """
import json, sys
import helm_python as helm
chart, variants, found = sys.argv[1], json.loads(sys.argv[2]), []
with helm.Chart.load(chart) as loaded:
    for values in variants:
        try:
            found.append([loaded.render(values, name="demo", namespace="prod"), None])
        except helm.HelmError as error:
            found.append([{}, str(error)])
print(json.dumps([helm.lint(chart), found]))
"""
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "scaled": {"autoscaling": {"enabled": True}, "monitoring": {"podMonitor": True}, "gpus": 4},
    "open": {"apiKeys": {"none": True}, "networkPolicy": {"enabled": False}, "args": ["--max-num-seqs=64"]},
    "closed": {"networkPolicy": {"metricsFrom": []}, "monitoring": {"metricsPort": 9998}},
    "trtllm": {"engine": "trtllm", "model": {"enginePath": "engines/q"}, "autoscaling": {"enabled": True}},
    "vllm-2": {"multiNode": {"size": 2}, "gpus": 8, "args": ["--tensor-parallel-size=8", "--pipeline-parallel-size=2"]},
    "trtllm-2": {
        "engine": "trtllm",
        "model": {"enginePath": "e"},
        "multiNode": {"size": 2, "cacheClaim": "c"},
        "gpus": 8,
    },
    "cluster": {
        "model": {"hub": "Qwen/Qwen3-8B", "hubSecret": "hub"},
        "cacheClaim": "cache",
        "annotations": {"team": "chat"},
        "podAnnotations": {"example.com/scrape": "no"},
        "podLabels": {"cost-centre": "7"},
        "serviceAccount": {"create": True, "annotations": {"example.com/role": "reader"}},
        "extraVolumes": [{"name": "templates", "configMap": {"name": "templates"}}],
        "extraVolumeMounts": [{"name": "templates", "mountPath": "/templates", "readOnly": True}],
        "topologySpread": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
        "service": {"type": "LoadBalancer", "annotations": {"example.com/internal": "true"}},
        "ingress": {"enabled": True, "className": "nginx", "host": "chat.example.com", "tlsSecret": "certificate"},
        "httpRoute": {"enabled": True, "parentRefs": [{"name": "gateway"}], "hostnames": ["chat.example.com"]},
        "monitoring": {
            "podMonitor": True,
            "labels": {"release": "prometheus"},
            "metricsPort": 9998,
            "rules": {"enabled": True, "runbooks": "https://docs.example.com/chat/"},
            "dashboard": {"enabled": True},
        },
    },
}
# Values that are refused, and a word of the reason.
WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"replica": 2}, "replica"),
    ({"engine": "sglang"}, "engine"),
    ({"engine": "trtllm"}, "engine trtllm needs model.enginePath"),
    ({"args": ["max-num-seqs=4"]}, "args"),
    ({"engine": "trtllm", "model": {"enginePath": "e"}, "multiNode": {"size": 2}}, "needs multiNode.cacheClaim"),
    ({"model": {"hub": "Qwen/Qwen3-8B"}, "multiNode": {"size": 2}}, "model.hub is for engine vllm on one machine"),
    ({"model": {"hub": "/models/Qwen3-8B"}}, "hub"),
    ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
    ({"ingress": {"enabled": True, "tlsSecret": "certificate"}}, "ingress.host"),
    ({"ingress": {"hosts": ["chat.example.com"]}}, "hosts"),
    ({"podAnnotations": {"a": 1}}, "podAnnotations"),
    ({"monitoring": {"metricsPort": 70000}}, "metricsPort"),
)
# Kinds that Kubernetes itself does not know, with the fields that this chart uses of each definition.
CUSTOM = {
    "LeaderWorkerSet": {"replicas", "startupPolicy", "leaderWorkerTemplate"},
    "ScaledObject": {"scaleTargetRef", "minReplicaCount", "maxReplicaCount", "advanced", "triggers"},
    "PodMonitor": {"selector", "podMetricsEndpoints"},
    "HTTPRoute": {"parentRefs", "hostnames", "rules"},
    "PrometheusRule": {"groups"},
}


@functools.cache
def helm() -> tuple[dict[str, Any], dict[str, tuple[dict[str, str], str | None]]]:
    """(lint, (files, error) of each variant and of each of WRONG), all by one process: Helm takes a second to load."""
    variants = [*VARIANTS.values(), *(values for values, _ in WRONG)]
    done = run_tool("python", "-c", RENDER, CHART, json.dumps(variants))
    assert done.returncode == 0, done.stderr
    lint, found = json.loads(done.stdout)
    return lint, dict(zip([*VARIANTS, *(words for _, words in WRONG)], found, strict=True))


def chart(name: str) -> dict[str, dict[str, Any]]:
    """The documents of a variant by their kind."""
    files, error = helm()[1][name]
    assert error is None
    documents = [
        one for file, text in files.items() if file.endswith(".yaml") for one in yaml.safe_load_all(text) if one
    ]
    kinds = {document["kind"]: document for document in documents}
    assert len(kinds) == len(documents)
    return kinds


def pods(name: str) -> list[dict[str, Any]]:
    """The pod templates of a variant; a group's leader first."""
    kinds = chart(name)
    if "Deployment" in kinds:
        return [kinds["Deployment"]["spec"]["template"]]
    group = kinds["LeaderWorkerSet"]["spec"]["leaderWorkerTemplate"]
    return [group["leaderTemplate"], group["workerTemplate"]]


def test_lint_and_version() -> None:
    lint, _ = helm()
    assert not lint["errors"]
    assert [one for one in lint["messages"] if "icon" not in one["error"]] == []
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert chart["version"] == chart["appVersion"] == __version__


def validate(documents: list[dict[str, Any]], file: Path) -> "subprocess.CompletedProcess[str]":
    file.write_text(yaml.safe_dump_all(documents))
    environment = {"PATH": os.environ["PATH"], "PYTHONWARNINGS": "ignore"}
    return run_tool("kubernetes-validate", "--strict", "--no-warn", file, env=environment)


def test_kubernetes_takes_every_document(tmp_path: Path) -> None:
    documents = []
    for name in VARIANTS:
        documents += [document for kind, document in chart(name).items() if kind not in CUSTOM]
        # A custom kind's pods are what Kubernetes gets in the end.
        documents += [
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name} | pod["metadata"], "spec": pod["spec"]}
            for pod in pods(name)
        ]
        for kind in CUSTOM.keys() & chart(name).keys():
            assert chart(name)[kind]["spec"].keys() <= CUSTOM[kind]
    done = validate(documents, tmp_path / "all.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_document_would_be_found(tmp_path: Path) -> None:
    document = chart("default")["Deployment"]
    assert validate([document | {"spec": document["spec"] | {"replica": 1}}], tmp_path / "one.yaml").returncode != 0


@pytest.mark.parametrize("words", [words for _, words in WRONG])
def test_wrong_values_are_refused(words: str) -> None:
    files, error = helm()[1][words]
    assert error is not None and words in error and not files


@pytest.mark.parametrize("name", VARIANTS)
def test_pods_may_do_little_and_end_in_peace(name: str) -> None:
    for pod in pods(name):
        spec = pod["spec"]
        (container,) = spec["containers"]
        assert spec["securityContext"]["runAsNonRoot"] and spec["securityContext"]["runAsUser"] == 1000
        assert not spec["automountServiceAccountToken"]
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert not container["securityContext"]["allowPrivilegeEscalation"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert ("models" in mounts) == (name != "cluster")
        assert mounts.get("models", {"readOnly": True})["readOnly"] and mounts["shm"]["mountPath"] == "/dev/shm"
        assert {volume["name"] for volume in spec["volumes"]} == mounts.keys()
        number = str(VARIANTS[name].get("gpus", 1))
        assert (
            container["resources"]["limits"]["nvidia.com/gpu"]
            == container["resources"]["requests"]["nvidia.com/gpu"]
            == number
        )
    leader = pods(name)[0]["spec"]
    (container,) = leader["containers"]
    options = parse_options(container["args"])
    assert options.host == options.triton_host == "0.0.0.0" and options.ready_timeout == 1200
    drain = int(options.settings["TRITON_CHAT_GRACE_PERIOD"])
    delay = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert leader["terminationGracePeriodSeconds"] > delay + drain + FRONTEND_MARGIN_S + TRITON_GRACE_S
    if name == "default":
        assert [delay, drain, leader["terminationGracePeriodSeconds"]] == shutdown_seconds(column=1)
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= options.ready_timeout


@pytest.mark.parametrize("name", VARIANTS)
def test_options_ports_and_probes_are_real(name: str) -> None:
    (container,) = pods(name)[0]["spec"]["containers"]
    check_flags(container["args"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    own_port = VARIANTS[name].get("monitoring", {}).get("metricsPort")
    assert ports == {"http": PORT, "metrics": METRICS_PORT} | ({"front-metrics": own_port} if own_port else {})
    assert container["readinessProbe"]["httpGet"] == {"path": "/health/ready", "port": "http"}
    assert container["livenessProbe"]["httpGet"] == {"path": "/health/live", "port": "http"}
    assert chart(name)["Service"]["spec"]["ports"] == [{"name": "http", "port": 80, "targetPort": "http"}]
    selector = chart(name)["Service"]["spec"]["selector"]
    assert selector.items() <= pods(name)[0]["metadata"]["labels"].items()
    for worker in pods(name)[1:]:
        assert not selector.items() <= worker["metadata"]["labels"].items()
    budget = chart(name)["PodDisruptionBudget"]["spec"]
    assert budget["maxUnavailable"] == 1 and budget["selector"]["matchLabels"] == selector


def test_keys_are_asked_for_unless_told() -> None:
    (container,) = pods("default")[0]["spec"]["containers"]
    mount = next(mount for mount in container["volumeMounts"] if mount["name"] == "keys")
    assert f"--api-keys-file={mount['mountPath']}/keys" in container["args"] and mount["readOnly"]
    (container,) = pods("open")[0]["spec"]["containers"]
    assert "keys" not in json.dumps(container)
    assert container["args"][-1] == "--max-num-seqs=64"
    assert "NetworkPolicy" not in chart("open")


def test_tritons_ports_are_closed() -> None:
    http, metrics_port = chart("default")["NetworkPolicy"]["spec"]["ingress"]
    assert http == {"ports": [{"port": "http", "protocol": "TCP"}]}
    assert metrics_port["from"] and [port["port"] for port in metrics_port["ports"]] == ["metrics"]
    # Kubernetes takes an empty `from` for everybody.
    assert chart("closed")["NetworkPolicy"]["spec"]["ingress"] == [http]


@pytest.mark.parametrize("name", ["scaled", "trtllm"])
def test_scaling_asks_for_metrics_that_exist(name: str) -> None:
    scaled, target = chart(name)["ScaledObject"]["spec"], chart(name)["Deployment"]
    assert scaled["scaleTargetRef"] == {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": target["metadata"]["name"],
    }
    assert "replicas" not in target["spec"]
    waiting, in_flight = (trigger["metadata"] for trigger in scaled["triggers"])
    assert f"sum({metrics.QUEUED._name}{{namespace=" in waiting["query"]
    engines = (
        'nv_trt_llm_request_metrics{request_type="waiting",' if name == "trtllm" else "triton_chat_engine_waiting{"
    )
    assert engines in waiting["query"]
    assert f"sum({metrics.IN_FLIGHT._name}{{namespace=" in in_flight["query"]
    assert (waiting["threshold"], in_flight["threshold"]) == ("4", "96")


def test_an_engine_across_machines_on_ray() -> None:
    assert "Deployment" not in chart("vllm-2")
    group = chart("vllm-2")["LeaderWorkerSet"]["spec"]["leaderWorkerTemplate"]
    assert group["size"] == 2 and group["restartPolicy"] == "RecreateGroupOnPodRestart"
    leader, worker = (pod["spec"]["containers"][0] for pod in pods("vllm-2"))
    assert (
        "ray start --head --port=6379" in leader["command"][2] and 'exec triton-chat serve "$@"' in leader["command"][2]
    )
    assert '--address="$LWS_LEADER_ADDRESS:6379"' in worker["command"][2]
    engine = parse_options(leader["args"]).engine
    assert engine == {"distributed_executor_backend": "ray", "tensor_parallel_size": 8, "pipeline_parallel_size": 2}


def test_an_engine_across_machines_on_mpi() -> None:
    leader, worker = (pod["spec"]["containers"][0] for pod in pods("trtllm-2"))
    # The leader writes its hosts before it serves: those that LeaderWorkerSet names.
    script = leader["command"][2].partition("for address")[0].replace("/tmp/hosts", "/dev/stdout")
    given = {"GPUS": "8", "LWS_GROUP_SIZE": "3", "LWS_LEADER_ADDRESS": "demo-0.demo.prod", "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", "-ec", script], env=given, capture_output=True, text=True, timeout=20)
    assert done.stdout.splitlines() == [
        "demo-0.demo.prod slots=8",
        "demo-0-1.demo.prod slots=8",
        "demo-0-2.demo.prod slots=8",
    ]
    assert parse_options(leader["args"]).engine == {"num_nodes": 2}
    variables = {one["name"]: one["value"] for one in leader["env"]}
    assert variables["TMPDIR"] == "/cache"
    assert variables["OMPI_MCA_plm_rsh_agent"].split()[-1] == "/etc/triton-chat/ssh/config"
    assert "/etc/triton-chat/ssh/sshd_config" in worker["command"][2]
    assert "COPY docker/ssh /etc/triton-chat/ssh" in (DOCKER / "Dockerfile.trtllm").read_text(encoding="utf-8")
    ports = {
        line
        for file in ("config", "sshd_config")
        for line in (DOCKER / "ssh" / file).read_text().split("\n")
        if "Port" in line
    }
    assert {line.split()[1] for line in ports} == {"2222"} == {str(port["containerPort"]) for port in worker["ports"]}
    assert any(
        volume.get("persistentVolumeClaim", {}).get("claimName") == "c"
        for volume in pods("trtllm-2")[1]["spec"]["volumes"]
    )


def test_what_a_cluster_asks_of_pods() -> None:
    deployment = chart("cluster")["Deployment"]
    (pod,) = pods("cluster")
    spec, (container,) = pod["spec"], pod["spec"]["containers"]
    assert deployment["metadata"]["annotations"] == {"team": "chat"}
    assert pod["metadata"]["annotations"] == {"example.com/scrape": "no"}
    assert pod["metadata"]["labels"]["cost-centre"] == "7"
    account = chart("cluster")["ServiceAccount"]
    assert spec["serviceAccountName"] == account["metadata"]["name"]
    assert account["metadata"]["annotations"] == {"example.com/role": "reader"}
    (spread,) = spec["topologySpreadConstraints"]
    assert spread["topologyKey"] == "zone" and spread["labelSelector"] == deployment["spec"]["selector"]
    assert {"name": "templates", "configMap": {"name": "templates"}} in spec["volumes"]
    assert {"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}} in spec["volumes"]
    service = chart("cluster")["Service"]
    assert service["spec"]["type"] == "LoadBalancer"
    assert service["metadata"]["annotations"] == {"example.com/internal": "true"}
    (container,) = pods("default")[0]["spec"]["containers"]
    assert "serviceAccountName" not in pods("default")[0]["spec"] and "env" not in container


def test_a_model_of_the_hub_is_downloaded_with_the_secrets_token() -> None:
    (container,) = pods("cluster")[0]["spec"]["containers"]
    assert (container["args"][0], container["args"][1]) == ("Qwen/Qwen3-8B", "--served-model-name=Qwen3-8B")
    (token,) = container["env"]
    assert token == {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    # The download is in the volume of /cache.
    assert "HF_HOME=/cache/" in (DOCKER / "Dockerfile.vllm").read_text(encoding="utf-8")


def test_only_the_api_is_open_to_the_outside() -> None:
    ingress, route = chart("cluster")["Ingress"]["spec"], chart("cluster")["HTTPRoute"]["spec"]
    service = chart("cluster")["Service"]
    name, (port,) = service["metadata"]["name"], service["spec"]["ports"]
    (rule,) = ingress["rules"]
    assert ingress["ingressClassName"] == "nginx" and rule["host"] == "chat.example.com"
    assert ingress["tls"] == [{"secretName": "certificate", "hosts": ["chat.example.com"]}]
    (path,) = rule["http"]["paths"]
    assert (path["path"], path["backend"]["service"]) == ("/v1", {"name": name, "port": {"name": port["name"]}})
    (rule,) = route["rules"]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/v1"}}]
    assert rule["backendRefs"] == [{"name": name, "port": port["port"]}]


def test_metrics_at_a_port_of_their_own() -> None:
    (container,) = pods("cluster")[0]["spec"]["containers"]
    assert "--metrics-port=9998" in container["args"]
    for name, frontends in (("cluster", "front-metrics"), ("scaled", "http")):
        monitor = chart(name)["PodMonitor"]
        assert [one["port"] for one in monitor["spec"]["podMetricsEndpoints"]] == [frontends, "metrics"]
    assert chart("cluster")["PodMonitor"]["metadata"]["labels"]["release"] == "prometheus"
    _, closed = chart("cluster")["NetworkPolicy"]["spec"]["ingress"]
    assert closed["from"] and [port["port"] for port in closed["ports"]] == ["metrics", "front-metrics"]


def test_the_alerts_and_the_dashboard_are_those_of_the_project() -> None:
    rule = chart("cluster")["PrometheusRule"]
    alerts = (DOCKER / "prometheus" / "alerts.yml").read_text(encoding="utf-8")
    moved = alerts.replace("docs/alerts.md", "https://docs.example.com/chat/alerts.html")
    assert rule["spec"]["groups"] == yaml.safe_load(moved)["groups"] != yaml.safe_load(alerts)["groups"]
    assert rule["metadata"]["labels"]["release"] == "prometheus"
    board = chart("cluster")["ConfigMap"]
    assert board["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(board["data"]["triton-chat.json"]) == dashboard()


@pytest.mark.parametrize("name", VARIANTS)
def test_the_charts_test_asks_the_service(name: str) -> None:
    pod, service = chart(name)["Pod"], chart(name)["Service"]
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    # Neither the service nor Prometheus takes it for a stack.
    assert not service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    (container,) = pod["spec"]["containers"]
    assert container["command"][:2] == ["python3", "-m"] and find_spec(container["command"][2])
    variables = {one["name"]: one["value"] for one in container["env"]}
    assert address(container["command"], variables) == f"http://{service['metadata']['name']}:80/health/ready"
