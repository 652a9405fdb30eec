# SPDX-License-Identifier: Apache-2.0
"""The dashboard and the alerts in `docker/` are whole. That their metrics exist is for test_seeing.py."""

import re

import pytest
import yaml

from tests.support.monitoring import DOCKER, FUNCTIONS, bare, dashboard, expressions, rules


@pytest.mark.parametrize("expression", expressions())
def test_an_expression_is_well_formed(expression: str) -> None:
    """A small check: `promtool check rules` reads the language itself."""
    assert not re.search(r"\$", expression), "a variable that is not filled in"
    depth = 0
    for character in bare(expression):
        depth += {"(": 1, ")": -1}.get(character, 0)
        assert depth >= 0
    assert depth == 0
    assert not set("{}[]") & set(bare(expression)), "a selector or a range that does not end"
    assert set(re.findall(r"(\w+)\(", expression)) <= FUNCTIONS, "an unknown function"
    counters = re.findall(r"(triton_chat_\w+_(?:total|bucket|count|sum))(?:\{[^}]*\})?(\[\d+m\])?", expression)
    assert all(span for _, span in counters), "a counter is read by its rate"


def test_the_dashboards_panels_are_told_apart_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells


def test_alerts_tell_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description"}


def test_prometheus_scrapes_both_halves_under_the_names_of_the_alerts() -> None:
    config = yaml.safe_load((DOCKER / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = [job["job_name"] for job in config["scrape_configs"]]
    selector = re.search(r'job=~"([^"]*)"', rules()[0]["expr"])
    assert selector is not None and all(re.fullmatch(selector[1], job) for job in jobs) and len(jobs) == 2
    assert config["rule_files"] == ["alerts.yml"]


def test_the_collector_takes_what_it_hands_on() -> None:
    config = yaml.safe_load((DOCKER / "otel" / "collector.yaml").read_text(encoding="utf-8"))
    pipeline = config["service"]["pipelines"]["traces"]
    for kind in ("receivers", "processors", "exporters"):
        assert set(pipeline[kind]) == set(config[kind])
