"""Rules and dashboards for Prometheus and Grafana use metrics that exist, and the rules pass promtool."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from engine_provisioner.metrics import Metrics as ProvisionerMetrics
from pool_managerd.metrics import Metrics as PoolManagerMetrics
from pool_managerd.pools.node_pools import NodePools
from queen_rbee.metrics import WAIT_MS
from queen_rbee.metrics import Metrics as QueenMetrics
from tests.engines.fixtures import skip_or_fail
from tools.generating.dashboards import DASHBOARDS, dashboard_file

ROOT = Path(__file__).parents[2]
RULES = ROOT / "packaging/monitoring/llama-orch.rules.yml"
RULES_TEST = ROOT / "tests/monitoring/rules.test.yml"
OF_PROMETHEUS = {"up", "ALERTS"}
LABELS = {
    "cause", "device", "engine", "engine_version", "fallback", "key", "model_id", "node_id", "outcome", "pinned",
    "policy", "pool_id", "priority", "reason", "replica_id", "result", "state", "uuid", "xid",
}  # fmt: skip
"""Labels whose values are bounded by the configuration or by the code: none of a task, session, client or address."""


def registries() -> list[CollectorRegistry]:
    provisioner = CollectorRegistry()
    ProvisionerMetrics(provisioner)
    return [QueenMetrics().registry, PoolManagerMetrics(NodePools()).collectors, provisioner]


SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}


def series_of_daemons() -> Iterator[str]:
    for registry in registries():
        for family in registry.collect():
            yield from (family.name + suffix for suffix in SUFFIXES.get(family.type, ("",)))


def labels_of_daemons() -> Iterator[str]:
    for registry in registries():
        for family in registry._collector_to_names:
            yield from getattr(family, "_labelnames", ())
        for shown in registry.collect():
            yield from getattr(shown, "_labelnames", ())


def series_in(promql: str) -> set[str]:
    """Return the names of series in an expression: what is followed by a brace, or has the form of a metric."""
    without_labels = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\b(by|on)\s*\([^)]*\)", " ", promql)
    words = set(re.findall(r"\b[a-zA-Z_][a-zA-Z_:0-9]*\b(?!\s*\()", without_labels))
    return words - {"by", "on", "or", "and", "unless", "offset", "bool", "m", "h", "e"}


def expressions() -> list[str]:
    rules = [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]
    return rules + [query for dashboard in DASHBOARDS for panel in dashboard.panels for query, _ in panel.queries]


def test_rules_and_dashboards_use_metrics_that_exist() -> None:
    known = OF_PROMETHEUS | set(series_of_daemons())
    for expression in expressions():
        assert series_in(expression) <= known, expression


def test_rules_pass_their_tests_with_promtool() -> None:
    promtool = shutil.which("promtool") or skip_or_fail("no promtool (apt install prometheus)")
    for verb, file in (("check", RULES), ("test", RULES_TEST)):
        done = subprocess.run([promtool, verb, "rules", file], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tested_explained_and_says_what_to_do() -> None:
    manual = (ROOT / "man/llama-orch-monitoring.7").read_text()
    tests = RULES_TEST.read_text()
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            name = rule.get("alert") or rule["record"]
            assert rf"\fB\%{name}\fP" in manual
            if "alert" in rule:
                assert f'"{name}"' in tests
                assert rule["labels"]["severity"] in ("critical", "warning")
                assert set(rule["annotations"]) == {"summary", "description"}


def test_each_label_of_a_metric_has_few_values() -> None:
    assert set(labels_of_daemons()) == LABELS


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.uid)
def test_panels_of_a_dashboard_do_not_overlap(dashboard: Any) -> None:
    panels = json.loads(dashboard_file(dashboard))["panels"]
    cells = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(cells) == len(set(cells))
    assert all(x < 24 for x, _y in cells)
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_buckets_of_waits_reach_beyond_the_alert() -> None:
    threshold = re.search(r"LlamaOrchRequestsWait\n.*?> (\d+)\n", RULES.read_text(), re.DOTALL)
    assert threshold
    assert int(threshold[1]) < WAIT_MS[-1]
