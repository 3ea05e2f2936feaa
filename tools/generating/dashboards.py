"""Grafana dashboards as declarations: panels in rows of three, each with its Prometheus queries."""

import json
from dataclasses import dataclass
from typing import Any

PANEL_WIDTH, PANEL_HEIGHT, COLUMNS = 8, 7, 24
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True)
class Panel:
    """A time series, or with `now` a single value. `queries` are pairs of PromQL and legend; `unit` is Grafana's."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    description: str = ""
    now: bool = False


@dataclass(frozen=True)
class Dashboard:
    """A dashboard. `uid` is its address in Grafana and its file's name."""

    uid: str
    title: str
    panels: tuple[Panel, ...]


def percentiles(histogram: str, by: str) -> tuple[tuple[str, str], ...]:
    """Return the queries for median and 95th percentile of a histogram, grouped by a label."""
    rates = f"sum by ({by}, le) (rate({histogram}_bucket[$__rate_interval]))"
    return tuple(
        (f"histogram_quantile({q}, {rates})", f"{name} {{{{{by}}}}}") for q, name in ((0.5, "p50"), (0.95, "p95"))
    )


OVERVIEW = Dashboard(
    "llama-orch-overview",
    "llama-orch: overview",
    (
        Panel("Nodes online", "none", (("orchd_nodes_online", "nodes"),), "0 on a single machine (HOME_PROFILE)", True),
        Panel("Ready pools", "none", (("sum(orchd_pools_available)", "pools"),), "", True),
        Panel(
            "Alerts",
            "none",
            (('count(ALERTS{alertstate="firing",alertname=~"LlamaOrch.*"}) or vector(0)', ""),),
            "",
            True,
        ),
        Panel(
            "Requests",
            "reqps",
            (("sum by (outcome) (rate(orchd_tasks_dispatched_total[$__rate_interval]))", "{{outcome}}"),),
            "By their last state",
        ),
        Panel("Waiting requests", "none", (("sum by (priority) (queue_depth)", "{{priority}}"),)),
        Panel(
            "Refused requests",
            "reqps",
            (("sum by (reason) (rate(tasks_rejected_total[$__rate_interval]))", "{{reason}}"),),
        ),
        Panel(
            "Tokens",
            "tokens/s",
            (
                ("sum(rate(tokens_in_total[$__rate_interval]))", "prompts"),
                ("sum(rate(tokens_out_total[$__rate_interval]))", "answers"),
            ),
        ),
        Panel("Time to first token", "ms", percentiles("latency_first_token_ms", "pool_id"), "From admission"),
        Panel(
            "Pools by state",
            "none",
            (("sum by (state) (provisioner_pools)", "{{state}}"),),
            "Of engine-provisioners that are scraped",
        ),
        Panel(
            "Models loaded and unloaded",
            "none",
            (
                ("sum by (outcome) (increase(orchd_model_loads_total[1h]))", "loaded: {{outcome}}"),
                ("sum by (reason) (increase(orchd_model_unloads_total[1h]))", "unloaded: {{reason}}"),
            ),
            "On demand, in the hour before",
        ),
        Panel(
            "Memory of the daemons",
            "bytes",
            (
                (
                    'process_resident_memory_bytes{job=~"queen-rbee|pool-managerd|engine-provisioner"}',
                    "{{job}} {{instance}}",
                ),
            ),
        ),
        Panel(
            "Processor time of the daemons",
            "percentunit",
            (
                (
                    'rate(process_cpu_seconds_total{job=~"queen-rbee|pool-managerd|engine-provisioner"}[$__rate_interval])',
                    "{{job}} {{instance}}",
                ),
            ),
        ),
    ),
)
NODES = Dashboard(
    "llama-orch-nodes",
    "llama-orch: nodes and GPUs",
    (
        Panel(
            "Heartbeats",
            "none",
            (('rate(orchd_node_heartbeats_total{outcome="success"}[$__rate_interval])', "{{node_id}}"),),
            "Each second; none on a single machine",
        ),
        Panel("Free slots", "none", (("pool_slots_free", "{{pool_id}} {{instance}}"),)),
        Panel(
            "Cached tokens in use",
            "percentunit",
            (("kv_cache_usage_ratio", "{{pool_id}} {{replica_id}}"),),
            "Part of the engine's KV cache that running requests use",
        ),
        Panel(
            "GPU memory in use",
            "percentunit",
            (("gpu_memory_used_bytes / gpu_memory_total_bytes", "{{device}} {{instance}}"),),
        ),
        Panel("GPU busy", "percent", (("gpu_utilization_percent", "{{device}} {{instance}}"),)),
        Panel("GPU temperature", "celsius", (("gpu_temperature_celsius", "{{device}} {{instance}}"),)),
        Panel("GPU power", "watt", (("gpu_power_watts", "{{device}} {{instance}}"),)),
        Panel(
            "Energy of 1,000 tokens",
            "joule",
            (
                (
                    "1000 * sum by (pool_id) (rate(pool_energy_joules_total[5m])) "
                    "/ (sum by (pool_id) (rate(pool_tokens_generated_total[5m])) > 0)",
                    "{{pool_id}}",
                ),
            ),
        ),
        Panel(
            "GPU faults",
            "none",
            (
                ("gpu_fenced", "fenced {{device}} {{instance}}"),
                ("gpu_lost", "lost {{device}} {{instance}}"),
                ("gpu_throttled", "throttled {{device}} {{instance}}"),
                ("increase(xid_errors_total[1h])", "Xid {{xid}} {{device}} {{instance}}"),
            ),
        ),
        Panel(
            "Engines that ended",
            "none",
            (("increase(provisioner_engine_exits_total[1h])", "{{pool_id}} {{cause}}"),),
            "In the hour before",
        ),
        Panel(
            "Downloads",
            "Bps",
            (("rate(provisioner_downloaded_bytes_total[$__rate_interval])", "{{pool_id}} {{instance}}"),),
        ),
        Panel(
            "Health checks that failed",
            "none",
            (
                (
                    'sum by (pool_id, reason) (rate(pool_health_checks_total{outcome="error"}[$__rate_interval]))',
                    "{{pool_id}} {{reason}}",
                ),
            ),
        ),
    ),
)
REQUESTS = Dashboard(
    "llama-orch-requests",
    "llama-orch: requests",
    (
        Panel("Time to first token", "ms", percentiles("latency_first_token_ms", "pool_id"), "From admission"),
        Panel("Time from first token to the end", "ms", percentiles("latency_decode_ms", "pool_id")),
        Panel("Time until a slot was free", "ms", percentiles("orchd_dispatch_latency_ms", "pool_id")),
        Panel(
            "Admitted requests",
            "reqps",
            (("sum by (priority) (rate(tasks_enqueued_total[$__rate_interval]))", "{{priority}}"),),
        ),
        Panel(
            "Started requests",
            "reqps",
            (
                (
                    "sum by (pool_id, replica_id) (rate(tasks_started_total[$__rate_interval]))",
                    "{{pool_id}} {{replica_id}}",
                ),
            ),
            "By pool and replica: how evenly are they placed?",
        ),
        Panel(
            "Cancelled requests",
            "reqps",
            (("sum by (reason) (rate(tasks_canceled_total[$__rate_interval]))", "{{reason}}"),),
        ),
        Panel(
            "Placements",
            "ops",
            (
                (
                    "sum by (outcome, pinned) (rate(placement_decisions_total[$__rate_interval]))",
                    "{{outcome}} pinned={{pinned}}",
                ),
            ),
        ),
        Panel(
            "Tokens of answers",
            "tokens/s",
            (("sum by (pool_id) (rate(tokens_out_total[$__rate_interval]))", "{{pool_id}}"),),
        ),
        Panel(
            "Open circuits",
            "none",
            (
                ("orchd_circuit_open", "{{pool_id}} {{replica_id}}"),
                ("increase(orchd_circuit_openings_total[1h])", "opened {{pool_id}}"),
            ),
        ),
    ),
)
DASHBOARDS = (OVERVIEW, NODES, REQUESTS)


def dashboard_file(dashboard: Dashboard) -> str:
    """Return the JSON that Grafana 10 and later import."""
    return json.dumps(_model(dashboard), indent=1, sort_keys=True) + "\n"


def _model(dashboard: Dashboard) -> dict[str, Any]:
    variable = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["llama-orch"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [variable]},
        "panels": [_panel(number, panel) for number, panel in enumerate(dashboard.panels)],
    }


def _panel(number: int, panel: Panel) -> dict[str, Any]:
    left = number * PANEL_WIDTH
    targets = [
        {
            "refId": chr(ord("A") + at),
            "expr": query,
            "legendFormat": legend,
            "datasource": DATASOURCE,
            "instant": panel.now,
        }
        for at, (query, legend) in enumerate(panel.queries)
    ]
    return {
        "id": number + 1,
        "type": "stat" if panel.now else "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "gridPos": {"x": left % COLUMNS, "y": left // COLUMNS * PANEL_HEIGHT, "w": PANEL_WIDTH, "h": PANEL_HEIGHT},
        "targets": targets,
    }
