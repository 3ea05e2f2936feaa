"""Settings beyond the reference (tests/unit/reference): formats, combinations, reports of all problems."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llama_orch.addresses import Host, parse_address
from llama_orch.settings import ConfigurationError, Problem
from llama_orch.settings.loading import Settings
from llama_orch.settings.types import ByteSize, GpuMask
from pool_managerd.settings import PoolManagerSettings
from queen_rbee.settings import QueenSettings
from tests.unit.reference.parsing import Entry, entries
from tools.generate import DAEMONS

TOKEN = "0123456789abcdef-secret"
CLOUD_QUEEN = {"ORCHESTRATORD_CLOUD_PROFILE": "true", "LLORCH_API_TOKEN": TOKEN}
CLOUD_NODE = {
    "POOL_MANAGERD_NODE_ID": "gpu-node-1",
    "ORCHESTRATORD_URL": "http://queen-rbee:8080",
    "LLORCH_API_TOKEN": TOKEN,
}
RANGES = [entry for entry in entries() if entry.range]


def value_of(settings: Settings, env: str) -> object:
    name = next(name for name, var in settings.variables().items() if var.env == env)
    return getattr(settings, name)


def problems(settings: type[Settings], environ: dict[str, str]) -> dict[str, Problem]:
    """Return the problems of `environ` by variable."""
    with pytest.raises(ConfigurationError) as caught:
        settings.load(environ)
    return {problem.variable: problem for problem in caught.value.problems}


@given(st.sampled_from(RANGES), st.data())
def test_numbers_in_range_are_accepted(entry: Entry, data: st.DataObject) -> None:
    assert entry.range
    number = data.draw(st.integers(*entry.range))
    assert value_of(DAEMONS[entry.daemon].load({entry.env: str(number)}), entry.env) == number


@given(st.sampled_from(RANGES), st.data())
def test_numbers_out_of_range_are_refused_with_range(entry: Entry, data: st.DataObject) -> None:
    assert entry.range
    low, high = entry.range
    number = data.draw(st.integers(max_value=low - 1) | st.integers(min_value=high + 1))
    problem = problems(DAEMONS[entry.daemon], {entry.env: str(number)})[entry.env]
    assert problem.value == str(number)
    assert str(low) in problem.hint
    assert str(high) in problem.hint


@pytest.mark.parametrize("entry", RANGES, ids=lambda entry: entry.env)
@pytest.mark.parametrize("text", ["1e3", "10.0", "ten", " ", "1_000", "0x10", "٣"])
def test_number_must_be_decimal_digits(entry: Entry, text: str) -> None:
    assert entry.env in problems(DAEMONS[entry.daemon], {entry.env: text})


@pytest.mark.parametrize("daemon", DAEMONS)
def test_empty_value_is_unset(daemon: str) -> None:
    settings = DAEMONS[daemon]
    empty = {var.env: "" for var in settings.variables().values()}
    assert settings.load(empty) == settings.load({})


def test_all_problems_are_reported_with_value_and_hint() -> None:
    wrong = {
        "ORCHD_ADMISSION_CAPACITY": "0",
        "ORCHD_ADMISSION_POLICY": "drop-all",
        "ORCHESTRATORD_BIND_ADDR": "8080",
        "RUST_LOG": "queen=loud",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "tempo:4317",
        "ORCHD_POOL_MANAGERS": "gpu-node-1:9200",
        "PROMETHEUS_METRICS_PORT": "8080",
        "ORCHESTRATORD_CLOUD_PROFILE": "1",
    }
    found = problems(QueenSettings, wrong)
    assert set(found) == {*wrong, "LLORCH_API_TOKEN"} - {"ORCHESTRATORD_CLOUD_PROFILE"}
    for variable, problem in found.items():
        assert problem.value == wrong.get(variable)
        assert str(problem).startswith(variable)
        assert problem.problem
        assert problem.hint.endswith((".", problem.hint.split("=")[-1]))


def test_problem_shows_no_regular_expression() -> None:
    problem = problems(PoolManagerSettings, CLOUD_NODE | {"POOL_MANAGERD_NODE_ID": "gpu node"})["POOL_MANAGERD_NODE_ID"]
    assert str(problem) == (
        "POOL_MANAGERD_NODE_ID=gpu node: has an invalid form. Allowed: 1 to 128 letters, digits, dots, dashes "
        "and underscores, but not the word register. Example: POOL_MANAGERD_NODE_ID=gpu-node-1"
    )


def test_reserved_node_id_is_refused() -> None:
    wrong = CLOUD_NODE | {"POOL_MANAGERD_NODE_ID": "register"}
    found = problems(PoolManagerSettings, wrong)
    assert set(found) == {"POOL_MANAGERD_NODE_ID"}
    assert "/v2/nodes/register" in found["POOL_MANAGERD_NODE_ID"].problem
    assert "not the word register" in found["POOL_MANAGERD_NODE_ID"].hint
    for near in ("Register", "register-1", "register."):
        assert PoolManagerSettings.load(CLOUD_NODE | {"POOL_MANAGERD_NODE_ID": near}).node_id == near


def test_settings_are_immutable() -> None:
    settings = QueenSettings.load({})
    with pytest.raises(ValidationError, match="frozen"):
        settings.capacity = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("127.0.0.1:8080", Host("127.0.0.1", 8080)),
        ("[::1]:80", Host("::1", 80)),
        ("[fe80::1%eth0]:80", Host("fe80::1%eth0", 80)),
        ("queen-rbee:0", Host("queen-rbee", 0)),
    ],
)
def test_address_round_trips(text: str, host: Host) -> None:
    assert parse_address(text) == host
    assert str(host) == text


@pytest.mark.parametrize(
    "text", ["8080", ":8080", "host:", "host:65536", "::1:80", "[zz]:80", "[127.0.0.1]:80", "http://h:80", "h:8 0"]
)
def test_invalid_address_is_refused(text: str) -> None:
    assert "ORCHESTRATORD_BIND_ADDR" in problems(QueenSettings, {"ORCHESTRATORD_BIND_ADDR": text})


@pytest.mark.parametrize(
    ("environ", "address", "variable"),
    [
        ({}, "127.0.0.1:8080", "ORCHESTRATORD_BIND_ADDR"),
        (CLOUD_QUEEN, "0.0.0.0:8080", "ORCHESTRATORD_BIND_ADDR"),
        ({"ORCHD_ADDR": "[::]:81"}, "[::]:81", "ORCHD_ADDR"),
        ({"ORCHD_ADDR": "h:81", "ORCHESTRATORD_BIND_ADDR": "h:81"}, "h:81", "ORCHESTRATORD_BIND_ADDR"),
        (CLOUD_QUEEN | {"ORCHESTRATORD_BIND_ADDR": "h:81"}, "h:81", "ORCHESTRATORD_BIND_ADDR"),
    ],
)
def test_queen_address_by_profile_and_variable(environ: dict[str, str], address: str, variable: str) -> None:
    settings = QueenSettings.load(environ)
    assert (str(settings.address), settings.address_variable) == (address, variable)


def test_two_different_addresses_are_a_conflict() -> None:
    found = problems(QueenSettings, {"ORCHD_ADDR": "h:81", "ORCHESTRATORD_BIND_ADDR": "h:82"})
    assert "ORCHESTRATORD_BIND_ADDR=h:82" in found["ORCHD_ADDR"].problem


ONLY_A_SECOND = {"LLORCH_API_TOKEN_SECOND": "0123456789abcdef"}
TRACES = {
    "sampler_takes_argument": {"OTEL_TRACES_SAMPLER_ARG": "0.5"},
    "collector_certificate_has_key": {"OTEL_EXPORTER_OTLP_CLIENT_KEY": "/tls.key"},
}
BREAKING: dict[str, dict[str, dict[str, str]]] = {
    "queen-rbee": {
        **TRACES,
        "one_address": {"ORCHD_ADDR": "h:81", "ORCHESTRATORD_BIND_ADDR": "h:82"},
        "a_certificate_has_its_key": {"LLORCH_TLS_CERT_FILE": "/tls.pem"},
        "a_second_token_has_a_first": ONLY_A_SECOND,
        "all_origins_need_a_token": {"LLORCH_ALLOWED_ORIGINS": "*"},
        "cloud_requires_token": {"ORCHESTRATORD_CLOUD_PROFILE": "true"},
        "metrics_port_is_separate": {"PROMETHEUS_METRICS_PORT": "8080"},
    },
    "pool-managerd": {
        **TRACES,
        "a_certificate_has_its_key": {"LLORCH_TLS_KEY_FILE": "/tls.key"},
        "a_second_token_has_a_first": ONLY_A_SECOND,
        "all_origins_need_a_token": {"LLORCH_ALLOWED_ORIGINS": "*"},
        "cloud_needs_all_three": {"POOL_MANAGERD_NODE_ID": "gpu-node-1"},
        "suspending_needs_another_machine": {"POOL_MANAGERD_SUSPEND_AFTER_SECS": "900"},
        "metrics_have_a_port_of_their_own": {"PROMETHEUS_METRICS_PORT": "9200"},
    },
    "engine-provisioner": TRACES,
}


@pytest.mark.parametrize("daemon", DAEMONS)
def test_each_rule_is_enforced_and_documented(daemon: str) -> None:
    rules = DAEMONS[daemon].rules()
    assert set(rules) == set(BREAKING[daemon])
    for name, environ in BREAKING[daemon].items():
        assert problems(DAEMONS[daemon], environ)
        assert (rules[name].__doc__ or "").endswith(".")


def test_comment_after_value_has_a_hint() -> None:
    mask = {"ENGINE_PROVISIONER_GPU_MASK": "0,1  # Use GPUs 0 and 1"}
    hint = problems(DAEMONS["engine-provisioner"], mask)["ENGINE_PROVISIONER_GPU_MASK"].hint
    assert hint.endswith("A comment needs a line of its own; after a value it is part of the value.")


def test_cloud_queen_requires_token() -> None:
    assert set(problems(QueenSettings, {"ORCHESTRATORD_CLOUD_PROFILE": "true"})) == {"LLORCH_API_TOKEN"}


@pytest.mark.parametrize("missing", CLOUD_NODE)
def test_cloud_node_requires_name_url_and_token(missing: str) -> None:
    environ = {name: value for name, value in CLOUD_NODE.items() if name != missing}
    found = problems(PoolManagerSettings, environ)
    assert set(found) == {missing}
    assert all(name in found[missing].hint for name in CLOUD_NODE)


def test_invalid_value_is_not_also_missing() -> None:
    with pytest.raises(ConfigurationError) as caught:
        PoolManagerSettings.load(CLOUD_NODE | {"POOL_MANAGERD_NODE_ID": "gpu node"})
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "[0:0:0:0:0:0:0:0]"])
def test_wildcard_address_is_not_advertised(host: str) -> None:
    address = {"POOL_MANAGERD_ADVERTISE_URL": f"http://{host}:9200"}
    assert "must name a machine" in problems(PoolManagerSettings, CLOUD_NODE | address)[next(iter(address))].problem


@pytest.mark.parametrize("behind", ["?a=b", "#a", "/?"])
@pytest.mark.parametrize("before", ["", "me:secret@"])
def test_base_url_has_no_query_or_fragment(before: str, behind: str) -> None:
    for settings, environ in (
        (PoolManagerSettings, CLOUD_NODE | {"ORCHESTRATORD_URL": f"http://{before}queen:8080{behind}"}),
        (PoolManagerSettings, CLOUD_NODE | {"ORCHESTRATORD_URL": "http://me:secret@queen:8080"}),
        (QueenSettings, {"ORCHD_POOL_MANAGERS": f"http://a:1,http://{before}b:2{behind}"}),
    ):
        (problem,) = problems(settings, environ).values()
        assert "more than a host, a port and a path" in problem.problem


def test_token_alone_does_not_select_cloud_profile() -> None:
    assert PoolManagerSettings.load({"LLORCH_API_TOKEN": TOKEN}).profile == "home"
    assert PoolManagerSettings.load(CLOUD_NODE).profile == "cloud"


@pytest.mark.parametrize("settings", [QueenSettings, PoolManagerSettings])
def test_metrics_and_api_cannot_share_a_port(settings: type[Settings]) -> None:
    port = {QueenSettings: "8080", PoolManagerSettings: "9200"}[settings]
    assert "PROMETHEUS_METRICS_PORT" in problems(settings, {"PROMETHEUS_METRICS_PORT": port})


@pytest.mark.parametrize(
    ("text", "indices"), [("0", (0,)), ("0,1", (0, 1)), (" 2 , 0 ", (2, 0)), ("cpu", ()), ("CPU", ())]
)
def test_gpu_mask_is_indices_or_cpu(text: str, indices: tuple[int, ...]) -> None:
    settings = DAEMONS["engine-provisioner"].load({"ENGINE_PROVISIONER_GPU_MASK": text})
    mask = value_of(settings, "ENGINE_PROVISIONER_GPU_MASK")
    assert mask == GpuMask(indices)
    assert GpuMask(indices).cpu is (not indices)


@pytest.mark.parametrize("text", ["gpu", "0,0", "0;1", "-1", ",", "0,cpu"])
def test_invalid_gpu_mask_is_refused(text: str) -> None:
    name = "ENGINE_PROVISIONER_GPU_MASK"
    assert name in problems(DAEMONS["engine-provisioner"], {name: text})


CACHE_LIMIT = "ENGINE_PROVISIONER_CACHE_LIMIT"


@pytest.mark.parametrize(
    ("text", "count", "shown"),
    [("200G", 200 << 30, "200G"), ("1024M", 1 << 30, "1G"), ("1500", 1500, "1500"), ("2t", 2 << 40, "2T")],
)
def test_size_is_in_bytes_or_powers_of_1024(text: str, count: int, shown: str) -> None:
    size = value_of(DAEMONS["engine-provisioner"].load({CACHE_LIMIT: text}), CACHE_LIMIT)
    assert isinstance(size, ByteSize)
    assert (size.count, str(size)) == (count, shown)


@pytest.mark.parametrize("text", ["0", "-1", "1.5G", "G", "10 G", "10P", "9999999999T", "200GiB"])
def test_invalid_size_is_refused(text: str) -> None:
    assert CACHE_LIMIT in problems(DAEMONS["engine-provisioner"], {CACHE_LIMIT: text})


def test_unknown_home_directory_is_a_problem() -> None:
    name = "ENGINE_PROVISIONER_CACHE_DIR"
    assert "~" in problems(DAEMONS["engine-provisioner"], {name: "~no-such-user/cache"})[name].problem


def test_variables_of_other_profile_are_named() -> None:
    set_both = {"ORCHD_RUNTIME_DIR": "/run", "ORCHESTRATORD_NODE_TIMEOUT_MS": "5000", "RUST_LOG": "info"}
    assert QueenSettings.load(set_both).without_effect(set_both) == ["ORCHESTRATORD_NODE_TIMEOUT_MS"]
    cloud = CLOUD_QUEEN | set_both
    assert QueenSettings.load(cloud).without_effect(cloud) == ["ORCHD_RUNTIME_DIR"]
    packaged = cloud | {"ORCHD_RUNTIME_DIR": "/run/llama-orch/engines"}
    assert QueenSettings.load(packaged).without_effect(packaged) == [], "the packages set it, whatever the profile"
    heartbeat = {"POOL_MANAGERD_HEARTBEAT_INTERVAL_SECS": "5"}
    assert PoolManagerSettings.load(heartbeat).without_effect(heartbeat) == list(heartbeat)
    assert PoolManagerSettings.load(CLOUD_NODE | heartbeat).without_effect(CLOUD_NODE | heartbeat) == []
    mask = {"ENGINE_PROVISIONER_GPU_MASK": "cpu"}
    assert DAEMONS["engine-provisioner"].load(mask).without_effect(mask) == []
