"""Metrics of keys, read from their accounts when they are scraped: a request costs nothing more for them.

The label `key` is the name of a key: as many series as keys.toml has keys, at most a thousand each.
"""

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from llama_orch.contracts.keys import KeyUsage
from queen_rbee.keys.keyring import Keyring

COUNTERS = {
    "orchd_key_requests": ("Admitted requests of a key.", "requests"),
    "orchd_key_refused": ("Requests of a key above one of its limits.", "refused"),
    "orchd_key_tokens_in": ("Prompt tokens of a key.", "tokens_in"),
    "orchd_key_tokens_out": ("Generated tokens of a key.", "tokens_out"),
}
OPEN = "orchd_key_tasks_open"


class KeyMetrics(Collector):
    """Part of Metrics. Has no series before `keyring` is set."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.keyring: Keyring | None = None
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        return self._families([])

    def collect(self) -> Iterable[Metric]:
        accounts = self.keyring.accounts() if self.keyring else ()
        return self._families([account.usage() for account in accounts])

    def _families(self, usages: list[KeyUsage]) -> Iterator[Metric]:
        for name, (text, field) in COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=["key"])
            for usage in usages:
                counter.add_metric([usage.key], getattr(usage, field))
            yield counter
        gauge = GaugeMetricFamily(OPEN, "Tasks of a key that wait or run.", labels=["key"])
        for usage in usages:
            gauge.add_metric([usage.key], usage.waiting_or_running)
        yield gauge
