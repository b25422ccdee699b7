"""What Grafana shows and Prometheus alerts on is there in `/metrics`; each alert has its place in the runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import PROJECT, MakeService

DEPLOY = PROJECT / "deploy"
PROMETHEUS = DEPLOY / "prometheus"
RUNBOOK = (DEPLOY / "RUNBOOK.md").read_text()
PROMTOOL = shutil.which("promtool")
ROWS = (
    *("Traffic", "Latency", "Outcomes", "Queue", "Providers", "Breakers", "Tokens and cost", "Deliveries"),
    "PostgreSQL pool, Valkey and event loop",
)
_TYPE = re.compile(r"^# TYPE (\S+) (\S+)$", re.MULTILINE)
_NAME = re.compile(r"\bsidecast_\w+")
_LABELS = re.compile(r"\{[^}]*\}")


def board() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DEPLOY / "grafana/sidecast.json").read_text())
    return found


def targets() -> Iterator[tuple[str, str]]:
    """Each panel's title and expression."""
    for panel in board()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def rules() -> list[dict[str, Any]]:
    [group] = yaml.safe_load((PROMETHEUS / "alerts.yaml").read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def names(expression: str) -> set[str]:
    """The metrics that an expression asks for."""
    return set(_NAME.findall(_LABELS.sub("", expression)))


async def told(make_service: MakeService) -> set[str]:
    """The names of all series that a running instance may tell, to an admin."""
    service = await make_service()
    text = await (await service.get("/metrics")).get_data(as_text=True)
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    kinds = [(name, kind) for name, kind in _TYPE.findall(text) if not name.endswith("_created")]
    return {name + part for name, kind in kinds for part in parts.get(kind, ("",))}


async def test_every_metric_that_is_shown_or_alerted_on_is_told(make_service: MakeService) -> None:
    there = await told(make_service)
    asked = {name: title for title, expression in targets() for name in names(expression)}
    asked |= {name: rule["alert"] for rule in rules() for name in names(rule["expr"])}
    assert len(asked) > 20
    assert {name: where for name, where in asked.items() if name not in there} == {}


async def test_every_metric_that_is_told_is_shown(make_service: MakeService) -> None:
    there = {re.sub("_(bucket|sum|count)$", "", name) for name in await told(make_service)}
    asked = {re.sub("_(bucket|sum|count)$", "", name) for _, expression in targets() for name in names(expression)}
    assert there - asked == set()


def test_the_dashboard_can_be_imported() -> None:
    found = board()
    assert found["schemaVersion"] >= 39
    assert "id" not in found, "that is another Grafana's"
    [datasource, instance] = found["templating"]["list"]
    assert (datasource["type"], datasource["query"], instance["type"]) == ("datasource", "prometheus", "query")
    assert [panel["title"] for panel in found["panels"] if panel["type"] == "row"] == ["Now", *ROWS]
    assert len({panel["id"] for panel in found["panels"]}) == len(found["panels"])
    shown = [panel for panel in found["panels"] if panel["type"] != "row"]
    for panel in shown:
        assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
        assert panel["description"], panel["title"]
        assert panel["targets"], panel["title"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in found["panels"]]
    assert len(set(places)) == len(places), "none covers another"


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_each_alert_says_what_it_is_and_where_to_read_on(rule: dict[str, Any]) -> None:
    """The runbook has for each what it means, how to look, and what to do."""
    assert rule["for"]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    about = rule["annotations"]
    assert about["summary"]
    assert about["description"]
    assert about["runbook_url"] == f"deploy/RUNBOOK.md#{rule['alert'].lower()}"
    _, _, section = RUNBOOK.partition(f"\n## {rule['alert']}\n")
    section = section.partition("\n## ")[0]
    for part in ("**Means.**", "**Check.**", "**Do.**"):
        assert part in section, part


def test_the_runbook_tells_of_no_alert_that_is_gone_and_leads_nowhere_else() -> None:
    headings = re.findall(r"^## (\S+)$", RUNBOOK, re.MULTILINE)
    assert headings == [rule["alert"] for rule in rules()]
    anchors = {heading.lower() for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", RUNBOOK)) <= anchors
    for path in re.findall(r"\]\(([^#)]+)\)", RUNBOOK):
        assert (DEPLOY / path).exists(), path


def test_prometheus_reads_the_rules_and_asks_the_instances_of_compose() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text())
    assert [(PROMETHEUS / name).exists() for name in config["rule_files"]] == [True]
    [job] = config["scrape_configs"]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    instances = {name for name in compose["services"] if name.startswith("sidecast-")}
    [listed] = job["static_configs"]
    assert {target.partition(":")[0] for target in listed["targets"]} == instances
    assert (job["job_name"], job["metrics_path"]) == ("sidecast", "/metrics")


def check(*arguments: str) -> str:
    assert PROMTOOL
    done = subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(not PROMTOOL, reason="promtool is not installed (Debian: apt install prometheus)")
def test_promtool_takes_the_config_and_the_rules() -> None:
    assert "SUCCESS" in check("check", "config", str(PROMETHEUS / "prometheus.yaml"))


@pytest.mark.skipif(not PROMTOOL, reason="promtool is not installed (Debian: apt install prometheus)")
def test_promtool_takes_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    expressions = [expression.replace("$__rate_interval", "5m") for _, expression in targets()]
    recorded = [{"record": f"shown:{number}", "expr": expression} for number, expression in enumerate(expressions)]
    file = tmp_path / "shown.yaml"
    file.write_text(json.dumps({"groups": [{"name": "shown", "rules": recorded}]}))
    assert f"SUCCESS: {len(expressions)} rules found" in check("check", "rules", str(file))


@pytest.mark.skipif(not PROMTOOL, reason="promtool is not installed (Debian: apt install prometheus)")
def test_each_alert_fires_when_it_should_and_not_otherwise() -> None:
    check("test", "rules", str(Path(__file__).with_name("alerts_fire.yaml")))
