"""Contract models: loopback URLs, unknown fields, ranges, and compatibility with older readers."""

import ipaddress
from datetime import UTC, datetime
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llama_orch.addresses import http_url, is_loopback
from llama_orch.contracts.errors import ErrorBody, ErrorCode
from llama_orch.contracts.handoff import Handoff, loopback_url
from llama_orch.contracts.nodes import node_address
from llama_orch.contracts.pools import PoolState, ProvisioningReport
from llama_orch.contracts.tasks import TaskRequest, TaskState


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080",
        "http://127.1.2.3:1/",
        "http://[::1]:8080",
        "http://localhost:8080",
        "http://[::ffff:127.0.0.1]:1",
    ],
)
def test_loopback_urls_are_accepted(url: str) -> None:
    assert loopback_url(url) == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:8080",
        "http://127.0.0.1",
        "http://127.0.0.1:0",
        "http://127.0.0.1:99999",
        "http://192.0.2.1:80",
        "http://0.0.0.0:80",
        "http://[::]:80",
        "http://localhost.example:80",
        "http://127.0.0.1.example:80",
        "http://user@127.0.0.1:80",
        "http://127.0.0.1\\@example:80",
        "http://127.0.0.1:80?x",
        "http://127.0.0.1:80#x",
        "http://127.0.0.1:80/a b",
        "http://127.0.0.1:80/v1",
        "http://127.0.0.1:80//",
        "http://127.0.0.1:80/..",
        "http://127.0.0.1:80;x",
        "http://127.0.0.1:80\n",
        "http://127.0.0.1:8\t0",
        "http://127.0.0.1:+80",
        "http://127.0.0.1:\u0668\u0660",
        "http://[::1%25lo]:80",
        "http://[::1%lo]:80",
        "http://[fe80::1%25eth0]:80",
        "http://[::1]x:80",
        "http://2130706433:80",
        "http://[::1:80",
        "",
    ],
)
def test_non_loopback_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        loopback_url(url)


@given(st.text(st.sampled_from("htp:/[]%.@?#\\ \t\n018localhost;-"), max_size=24))
def test_loopback_url_is_host_and_port_only(rest: str) -> None:
    try:
        url = loopback_url(f"http://{rest}")
    except ValueError:
        return
    host, _, port = url.removeprefix("http://").rpartition(":")
    assert is_loopback(host.strip("[]"))
    assert 0 < int(port) < 65536
    assert not set(url.removeprefix("http://")) & set("/%?#@\\ \t\n;")


@pytest.mark.parametrize(
    "address",
    [
        "http://node:80/path",
        "http://node\t:80",
        "http://node\n:80",
        "http://node\\x:80",
        "http://[fe80::1%25eth0]:80",
        "http://node:70000",
        "http://no%20de:80",
        "http://node:80;x",
    ],
)
def test_node_address_is_host_and_port_only(address: str) -> None:
    with pytest.raises(ValueError):
        node_address(address)
    assert node_address("https://node-1.example:9200/") == "https://node-1.example:9200"
    assert node_address("http://[2001:db8::1]:9200") == "http://[2001:db8::1]:9200"


@pytest.mark.parametrize("url", ["http://a\tb", "http://a:80\n", " http://a", "http://a\\b", "http://a\x00b"])
def test_url_with_control_characters_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="control character"):
        http_url(url)


@given(st.ip_addresses())
def test_only_loopback_addresses_are_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    assert is_loopback(str(address)) == (mapped or address).is_loopback


def test_minimal_handoff_with_unknown_fields_is_valid() -> None:
    handoff = Handoff.model_validate({"pool_id": "p", "engine_version": "1", "url": "http://127.0.0.1:1", "new": 1})
    assert (handoff.file_name, handoff.engine, handoff.schema_version) == ("p-r0.json", "llamacpp", 1)
    assert '"schema":1' in handoff.model_dump_json(by_alias=True)


@pytest.mark.parametrize("pool_id", ["", "A", "-a", "a" * 64, "a/b", "a\n", "..", "ä"])
def test_pool_id_is_a_plain_name(pool_id: str) -> None:
    with pytest.raises(ValidationError):
        Handoff.model_validate({"pool_id": pool_id, "engine_version": "1", "url": "http://127.0.0.1:1"})


def test_unknown_task_field_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        TaskRequest.model_validate({"prompt": "x", "max_token": 5, "placement": {"pool": "p"}})
    assert {error["loc"] for error in caught.value.errors()} == {("max_token",), ("placement", "pool")}


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_tokens": 0},
        {"temperature": float("nan")},
        {"top_p": 1.1},
        {"priority": "urgent"},
        {"task_id": "1"},
        {"stop": [""]},
        {"placement": {"mode": "pin"}},
        {"placement": {"require_device_mask": "0,"}},
    ],
)
def test_values_out_of_range_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TaskRequest.model_validate({"prompt": "x", **wrong})


def test_task_request_is_immutable_with_defaults() -> None:
    made = TaskRequest(prompt="x", task_id=uuid4())
    assert (made.workload, made.priority, made.determinism) == ("completion", "interactive", "best_effort")
    with pytest.raises(ValidationError, match="frozen"):
        made.prompt = "y"  # type: ignore[misc]


def test_final_states_are_the_last_three() -> None:
    assert [state.value for state in TaskState if state.final] == ["done", "failed", "cancelled"]


def test_error_body_omits_unset_fields() -> None:
    body = ErrorBody(code=ErrorCode.POOL_UNREADY, message="m")
    assert body.model_dump(exclude_none=True) == {"code": "POOL_UNREADY", "message": "m", "retriable": False}


def test_report_describes_the_progress() -> None:
    report = ProvisioningReport(pool_id="p", state=PoolState.FAILED, last_error="e", updated_at=datetime.now(UTC))
    assert ProvisioningReport.model_validate_json(report.model_dump_json(by_alias=True)) == report
