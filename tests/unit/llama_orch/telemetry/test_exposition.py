"""Format and encoding of /metrics."""

import gzip

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain
from quart.wrappers import Response
from werkzeug.datastructures import Headers

from llama_orch.http.server.app import metrics_app

PROMETHEUS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"


async def scraped(**headers: str) -> tuple[Response, bytes]:
    """Scrape an application with a counter of 3 and a histogram."""
    registry = CollectorRegistry()
    app = metrics_app("test", registry)
    Counter("tasks_started", "Tasks.", ("pool_id",), registry=registry).labels("p").inc(3)
    Histogram("latency_ms", "Latency.", registry=registry).observe(1)
    fields = Headers({name.replace("_", "-"): value for name, value in headers.items()})
    response = await app.test_client().get("/metrics", headers=fields)
    return response, await response.get_data(as_text=False)


def started(families) -> list[float]:
    samples = [sample for family in families for sample in family.samples]
    assert not [sample.name for sample in samples if sample.name.endswith("_created")]
    return [sample.value for sample in samples if sample.name == "tasks_started_total"]


async def test_default_exposition_is_plain_text():
    response, body = await scraped()
    assert response.content_type.startswith("text/plain; version=0.0.4")
    assert "content-encoding" not in response.headers
    assert started(plain(body.decode())) == [3]


async def test_prometheus_gets_openmetrics():
    response, body = await scraped(accept=PROMETHEUS)
    assert response.content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert body.endswith(b"# EOF\n")
    assert started(openmetrics(body.decode())) == [3]


@pytest.mark.parametrize("accept", [None, PROMETHEUS])
async def test_answer_is_compressed_if_accepted(accept):
    fields = {"accept": accept} if accept else {}
    response, body = await scraped(accept_encoding="deflate, gzip;q=0.5", **fields)
    assert response.headers["content-encoding"] == "gzip"
    assert b"tasks_started_total" in gzip.decompress(body)


@pytest.mark.parametrize("encoding", ["identity", "gzip;q=0", "br"])
async def test_answer_is_not_compressed_if_not_accepted(encoding):
    response, body = await scraped(accept_encoding=encoding)
    assert "content-encoding" not in response.headers
    assert b"tasks_started_total" in body


@pytest.mark.parametrize("accept", ["application/openmetrics-text; version=x", ";;,", "text/plain; version=\u00e9"])
async def test_invalid_accept_version_is_ignored(accept):
    response, body = await scraped(accept=accept)
    assert response.status_code == 200
    assert b"tasks_started_total" in body
