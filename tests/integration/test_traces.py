"""Traces of real daemons with a real engine, at a real collector; and what a dead or slow one costs: no request."""

import json
import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.engines.llama_server import Archive
from tests.integration.home import Home, free_port, home
from tests.services.collector import ReceivedSpan, RotelCollector, rotel

TRACE, CLIENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CHAT = {"messages": [{"role": "user", "content": "my secret prompt"}], "max_tokens": 4, "stream": True}
NODE = "gpu-node-1"
STEPS = ("admission", "queue", "placement", "dispatch", "relay")
NAMES = (
    *("POST /v1/chat/completions", *(f"llama_orch.{step}" for step in STEPS)),
    *("the call to the engine", "POST /v2/pools/{pool_id}/engine/{path...}", "POST"),
)


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RotelCollector]:
    with rotel(tmp_path_factory.mktemp("collector")) as running:
        yield running


@pytest.fixture(scope="module")
def cloud(
    tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, tiny_model: Path, collector: RotelCollector
) -> Iterator[Home]:
    directory = tmp_path_factory.mktemp("cloud")
    url = collector.grpc_url
    with home(directory, llama_server_tar, tiny_model, node_id=NODE, OTEL_EXPORTER_OTLP_ENDPOINT=url) as running:
        yield running


def chat(running: Home, trace: str = TRACE) -> tuple[int, str]:
    """Send a streamed chat as a client that has a span; return status and body."""
    connection = HTTPConnection("127.0.0.1", running.queen_port, timeout=60)
    try:
        headers = {"traceparent": f"00-{trace}-{CLIENT}-01", "content-type": "application/json"}
        connection.request("POST", "/v1/chat/completions", json.dumps(CHAT), headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def path_to(span: ReceivedSpan, spans: list[ReceivedSpan]) -> list[tuple[str, str]]:
    """Return service and name of `span` and of those above it, the outermost first."""
    above = [path_to(each, spans) for each in spans if each.id == span.parent]
    return [*(above[0] if above else ()), (span.service, span.name)]


def test_request_is_one_trace_from_client_to_engine(cloud: Home, collector: RotelCollector) -> None:
    status, body = chat(cloud)
    assert (status, "[DONE]" in body) == (200, True)
    found = collector.until(lambda spans: len([span for span in spans if span.trace == TRACE]) == len(NAMES))
    spans = [span for span in found if span.trace == TRACE]
    (last,) = [span for span in spans if (span.service, span.kind) == ("pool-managerd", "client")]
    model = next(span.name for span in spans if span.name.startswith("chat "))
    assert path_to(last, spans) == [
        ("queen-rbee", "POST /v1/chat/completions"),
        ("queen-rbee", "llama_orch.dispatch"),
        ("queen-rbee", model),
        ("pool-managerd", "POST /v2/pools/{pool_id}/engine/{path...}"),
        ("pool-managerd", "POST"),
    ]
    assert next(span.parent for span in spans if span.name == "POST /v1/chat/completions") == CLIENT
    assert "my secret prompt" not in collector.log.read_text()


def test_provisioner_reports_fetch_and_start(cloud: Home, collector: RotelCollector) -> None:
    assert cloud.pool()["ready"]
    found = collector.until(lambda spans: any(span.name == "llama_orch.start" for span in spans))
    own = [span for span in found if span.service == "engine-provisioner"]
    assert {span.name for span in own} >= {"llama_orch.provision", "llama_orch.fetch", "llama_orch.start"}
    (start, *_) = [span for span in own if span.name == "llama_orch.start"]
    assert start.attributes["llama_orch.pool.id"] == "default"


def test_spans_arrive_over_http_too(
    tmp_path: Path, collector: RotelCollector, llama_server_tar: Archive, tiny_model: Path
) -> None:
    trace = "1" + TRACE[1:]
    url, protocol = collector.http_url, "http/protobuf"
    with home(
        tmp_path,
        llama_server_tar,
        tiny_model,
        OTEL_EXPORTER_OTLP_ENDPOINT=url,
        OTEL_EXPORTER_OTLP_PROTOCOL=protocol,
    ) as running:
        assert chat(running, trace)[0] == 200
        collector.until(lambda spans: any(span.trace == trace for span in spans))


def test_dead_collector_costs_no_request_and_may_return(
    tmp_path: Path, llama_server_tar: Archive, tiny_model: Path
) -> None:
    port = free_port()
    with home(
        tmp_path, llama_server_tar, tiny_model, OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}"
    ) as running:
        assert chat(running)[0] == 200
        running.until(lambda: "traces do not reach the collector" in (tmp_path / "queen-rbee.log").read_text())
        with rotel(tmp_path, port) as collector:
            collector.until(lambda spans: any(span.trace == TRACE for span in spans))
            running.until(lambda: "traces reach the collector" in (tmp_path / "queen-rbee.log").read_text())


def test_silent_collector_costs_no_request(tmp_path: Path, llama_server_tar: Archive, tiny_model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with home(tmp_path, llama_server_tar, tiny_model, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as running:
            assert [chat(running)[0] for _request in range(3)] == [200] * 3
            assert running.stop("queen-rbee") == 0
