# SPDX-License-Identifier: Apache-2.0
"""Read the expressions of the dashboard and alerts in `docker/`, and the metrics in them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

DOCKER = Path(__file__).parents[2] / "docker"
FUNCTIONS = {"sum", "max", "rate", "histogram_quantile"}
KEYWORDS = {"by", "and", "le"}


def dashboard() -> dict[str, Any]:
    """The Grafana dashboard."""
    return json.loads((DOCKER / "grafana" / "dashboard.json").read_text(encoding="utf-8"))


def rules() -> list[dict[str, Any]]:
    """The alert rules."""
    groups = yaml.safe_load((DOCKER / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[str]:
    """Yield every PromQL expression, with the dashboard's variables filled in."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$__rate_interval", "5m").replace("$endpoint", ".*").replace("$model", ".*")
    for rule in rules():
        yield rule["expr"]


def bare(expression: str) -> str:
    """An expression without its selectors and ranges."""
    return re.sub(r"\{[^{}]*\}|\[\d+[smhd]\]", "", expression)


def metric_names(expression: str) -> set[str]:
    """The metrics that an expression reads."""
    without_groups = re.sub(r"\bby \([^()]*\)", "", bare(expression))
    return set(re.findall(r"\b[a-z_]\w*", without_groups)) - FUNCTIONS - KEYWORDS


def labels_read(expression: str) -> set[str]:
    """The labels that an expression selects or groups by."""
    selected = re.findall(r"(\w+)(?:=~|!~|!=|=)\"", expression)
    grouped = [name for group in re.findall(r"\bby \(([^()]*)\)", expression) for name in re.findall(r"\w+", group)]
    return {*selected, *grouped}
