# SPDX-License-Identifier: Apache-2.0
"""The dashboard and the alerts in `docker/` are whole. That their metrics exist is for test_seeing.py."""

import re
from pathlib import Path

import pytest
import yaml

from common.model_names import EMBEDDING, ENSEMBLE, STEPS, step
from tests.support.containers import ROOT, run_tool
from tests.support.monitoring import DOCKER, dashboard, expressions, panel_expressions, rules, variables

PROMETHEUS = DOCKER / "prometheus"


def test_every_expression_is_promql(tmp_path: Path) -> None:
    """Those of the dashboard are given to promtool as rules that record something."""
    records = [{"record": f"panel:{number}", "expr": one} for number, one in enumerate(expressions())]
    rule_file = tmp_path / "rules.yml"
    rule_file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": records}]}), encoding="utf-8")
    done = run_tool("promtool", "check", "rules", rule_file)
    assert done.returncode == 0 and f"{len(records)} rules found" in done.stdout, done.stdout + done.stderr
    done = run_tool("promtool", "check", "rules", "--lint-fatal", PROMETHEUS / "alerts.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should(tmp_path: Path) -> None:
    done = run_tool("promtool", "test", "rules", PROMETHEUS / "alerts_test.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    tested = (PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8")
    # The same tests find an alert that never fires, and one that always does.
    alerts = (PROMETHEUS / "alerts.yml").read_text(encoding="utf-8")
    (tmp_path / "alerts_test.yml").write_text(tested, encoding="utf-8")
    for wrong in ("> 99999", ">= 0"):
        (tmp_path / "alerts.yml").write_text(alerts.replace("> 0.05", wrong), encoding="utf-8")
        assert run_tool("promtool", "test", "rules", tmp_path / "alerts_test.yml").returncode != 0


@pytest.mark.parametrize("expression", [*expressions()])
def test_counters_are_read_by_their_rate(expression: str) -> None:
    assert not re.search(r"\$", expression), "a variable that is not filled in"
    counters = re.findall(r"(triton_chat_\w+_(?:total|bucket|count|sum))(?:\{[^}]*\})?(\[\d+m\])?", expression)
    assert all(span for _, span in counters)


def test_the_dashboards_panels_are_told_apart_and_do_not_overlap() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells


def test_every_panel_follows_the_choice_of_stacks() -> None:
    for expression in panel_expressions():
        for selector in re.findall(r"\{[^{}]*\}", expression):
            if "Hostname" not in selector:
                assert 'namespace=~"$namespace"' in selector and 'instance=~"$instance(:[0-9]+)?"' in selector


def test_an_instance_is_both_halves_of_a_stack() -> None:
    """The variable has addresses without ports, the selector takes any port."""
    pattern = re.compile(variables()["instance"]["regex"].strip("/"))
    for address in ("10.0.0.7", "stack-1", "[fd00::7]"):
        for port in ("", ":9997", ":8002"):
            found = pattern.match(address + port)
            assert found is not None and found[1] == address
            assert re.fullmatch(rf"{re.escape(found[1])}(:[0-9]+)?", address + port)


@pytest.mark.parametrize("served", ["qwen3", "Qwen2.5-7B"])
def test_the_chosen_models_steps_are_its_own(served: str) -> None:
    """Grafana writes a choice of several as (one|other), with their dots escaped."""
    (pattern,) = {one for text in panel_expressions() for one in re.findall(r'model=~"([^"]*ensemble[^"]*)"', text)}
    chosen = re.compile(pattern.replace("$model", f"({re.escape(served)}|third)"))
    own = [step(served, of, generation) for of in (*STEPS, EMBEDDING) for generation in (1, 2)]
    for name in (*own, served, ENSEMBLE, EMBEDDING, *STEPS):
        assert chosen.fullmatch(name), name
    for other in ("other", *(step("other", of) for of in STEPS)):
        assert not chosen.fullmatch(other), other


def test_red_is_where_the_alert_is() -> None:
    limits = {rule["alert"]: rule["expr"].rpartition("> ")[2].strip() for rule in rules()}
    limits["TritonChatKvCacheFull"] = re.search(r"kv_cache_usage > ([\d.]+)", str(rules()))[1]
    told = 0
    for panel in dashboard()["panels"]:
        alert = re.search(r"Red: the limit of the alert (\w+)", panel.get("description", ""))
        if alert:
            red = panel["fieldConfig"]["defaults"]["thresholds"]["steps"][-1]
            assert (red["color"], red["value"]) == ("red", float(limits[alert[1]])), panel["title"]
            told += 1
    assert told == 5


def test_alerts_tell_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}


def test_every_alert_has_its_runbook() -> None:
    runbooks = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (\w+)$", runbooks, re.MULTILINE)
    assert headings == [rule["alert"] for rule in rules()]
    for rule in rules():
        # The anchor of a heading is its text in lower case.
        assert rule["annotations"]["runbook_url"] == f"docs/alerts.md#{rule['alert'].lower()}"


def test_prometheus_scrapes_both_halves_under_the_names_of_the_alerts() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8"))
    jobs = [job["job_name"] for job in config["scrape_configs"]]
    selector = re.search(r'job=~"([^"]*)"', rules()[0]["expr"])
    assert selector is not None and all(re.fullmatch(selector[1], job) for job in jobs) and len(jobs) == 2
    assert config["rule_files"] == ["alerts.yml"]
    for name in ("prometheus.yml", "compose.yml"):
        done = run_tool("promtool", "check", "config", PROMETHEUS / name)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_collector_takes_what_it_hands_on() -> None:
    config = yaml.safe_load((DOCKER / "otel" / "collector.yaml").read_text(encoding="utf-8"))
    pipeline = config["service"]["pipelines"]["traces"]
    for kind in ("receivers", "processors", "exporters"):
        assert set(pipeline[kind]) == set(config[kind])
