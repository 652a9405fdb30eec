# SPDX-License-Identifier: Apache-2.0
"""Read the expressions of the dashboard and alerts in `docker/`, and the metrics in them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path(__file__).parents[2] / "docker"
FUNCTIONS = {"sum", "max", "rate", "histogram_quantile", "vector"}
KEYWORDS = {"by", "and", "or", "le"}
# Labels of metrics that a machine without a GPU does not have: Triton's (docs/user_guide/metrics.md of its repository) and
# those of the DCGM exporter's default counters (etc/default-counters.csv of its repository).
_TRITONS_GPU, _DCGM = {"gpu_uuid"}, {"gpu", "UUID", "pci_bus_id", "device", "modelName", "Hostname"}
GPU_METRICS = {
    **dict.fromkeys(
        ("nv_gpu_utilization", "nv_gpu_memory_used_bytes", "nv_gpu_memory_total_bytes", "nv_gpu_power_usage"),
        _TRITONS_GPU,
    ),
    **dict.fromkeys(("DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_FB_USED", "DCGM_FI_DEV_FB_FREE"), _DCGM),
    **dict.fromkeys(("DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_XID_ERRORS"), _DCGM),
}


def dashboard() -> dict[str, Any]:
    """The Grafana dashboard."""
    return json.loads((DOCKER / "grafana" / "dashboard.json").read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    """The alert rules."""
    groups = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def variables() -> dict[str, dict[str, Any]]:
    """The dashboard's variables with a query, by name."""
    return {one["name"]: one for one in dashboard()["templating"]["list"] if one["type"] == "query"}


def filled(expression: str) -> str:
    """An expression of the dashboard with all values chosen for each variable."""
    expression = expression.replace("$__rate_interval", "5m")
    for name, variable in variables().items():
        expression = re.sub(rf"\${name}\b", variable["allValue"], expression)
    return expression


def panel_expressions() -> Iterator[str]:
    """Yield the expressions of the dashboard's panels, as they are written."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"]


def expressions() -> Iterator[str]:
    """Yield every PromQL expression, with the dashboard's variables filled in."""
    yield from map(filled, panel_expressions())
    for rule in rules():
        yield rule["expr"]


def values_read() -> Iterator[tuple[str, str]]:
    """Yield what the dashboard's variables offer: the values of a label of the series of a selector."""
    for variable in variables().values():
        found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
        assert found is not None, variable
        yield filled(found[1]), found[2]


def bare(expression: str) -> str:
    """An expression without its selectors and ranges."""
    return re.sub(r"\{[^{}]*\}|\[\d+[smhd]\]", "", expression)


def metric_names(expression: str) -> set[str]:
    """The metrics that an expression reads."""
    without_groups = re.sub(r"\bby \([^()]*\)", "", bare(expression))
    return set(re.findall(r"\b[A-Za-z_]\w*", without_groups)) - FUNCTIONS - KEYWORDS


def labels_read(expression: str) -> set[str]:
    """The labels that an expression selects or groups by."""
    selected = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression)
    grouped = [name for group in re.findall(r"\bby \(([^()]*)\)", expression) for name in re.findall(r"\w+", group)]
    return {*selected, *grouped}
