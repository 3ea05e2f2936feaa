"""Findings of orchctl check from given observations."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_orch import VERSION
from llama_orch.contracts.meta import Readiness, Version
from llama_orch.contracts.nodes import NodeList, NodeReachability, NodeStanding, NodeStatus, NodeView
from llama_orch.contracts.pools import POOLS_EXAMPLE, POOLS_FILE, PoolList, PoolState, PoolStatus
from llama_orch.service.exit import ExitStatus
from orchctl.check.certificates import Certificate
from orchctl.check.check import all_findings
from orchctl.check.findings import Finding, Level, format_findings, make_report
from orchctl.check.local_node import LocalNode
from orchctl.check.observations import Observations
from orchctl.check.pool_findings import pool_findings
from orchctl.errors import CommandError
from tests.unit.orchctl.cluster import SNAPSHOT, node, pool

OK, WARNING, PROBLEM = Level.OK, Level.WARNING, Level.PROBLEM
REACHED = NodeReachability(node_id="gpu-1", address="http://gpu-1:9200", reachable=True, latency_ms=1.6)
UNREACHABLE = NodeReachability(
    node_id="gpu-1", address="http://gpu-1:9200", reachable=False, problem="no route to host"
)
NO_ANSWER = CommandError("no answer", "Is it running?", ExitStatus.UNAVAILABLE)
READY = Readiness(ready=True, reasons=[])


def pools(*given: PoolStatus) -> PoolList:
    return PoolList(pools=[*given], count=len(given))


def nodes(*given: NodeView) -> NodeList:
    return NodeList(nodes=[*given], count=len(given))


HEALTHY = Observations(
    url="http://q:8080",
    token="token_fp6=abcdef from LLORCH_API_TOKEN",
    clock_ahead_s=0.2,
    version=Version(version=VERSION, api_version="2"),
    ready=READY,
    pools=pools(pool()),
    nodes=nodes(node()),
    reachability={"gpu-1": REACHED},
    local=LocalNode("http://127.0.0.1:9200", expected=True, ready=READY, node_id="gpu-1"),
)


def findings_with(**changed: Any) -> list[Finding]:
    return [*all_findings(replace(HEALTHY, **changed))]


def unhealthy_with(**changed: Any) -> list[tuple[Level, str]]:
    return [(finding.level, finding.subject) for finding in findings_with(**changed) if finding.level is not OK]


def test_healthy_installation_has_only_ok_findings() -> None:
    findings = findings_with()
    assert {finding.level for finding in findings} == {OK}
    assert [finding.subject for finding in findings] == [
        *("queen", "token", "clock", "nodes", "node gpu-1", "pools", "this node", "this node")
    ]
    assert "last heartbeat 3 s ago, reached in 2 ms" in findings[4].text


def test_home_profile_is_ok_without_nodes_and_token() -> None:
    assert unhealthy_with(nodes=nodes(), reachability={}, token=None, local=None) == []


def test_unchecked_token_is_not_called_accepted() -> None:
    (finding,) = (
        each for each in findings_with(token="token_fp6=abcdef from X", token_optional=True) if each.subject == "token"
    )
    assert finding.level is OK
    assert "accepted" not in finding.text


def test_without_pools_advice_names_both_daemons() -> None:
    (finding,) = (each for each in findings_with(pools=pools()) if each.subject == "pools")
    assert "pool-managerd" in finding.mend
    assert "engine-provisioner" in finding.mend


def refusal(code: str, status: int = 401) -> CommandError:
    assert status in (401, 403)
    return CommandError(f"{code}: no", "", ExitStatus.NO_PERMISSION, code=code)


@pytest.mark.parametrize(
    ("code", "token", "words"),
    [
        ("MISSING_TOKEN", None, ["orchctl's token: none", "LLORCH_API_TOKEN_FILE"]),
        ("BAD_TOKEN", "token_fp6=abcdef from X", ["token_fp6=abcdef from X", "grep token_fp6"]),
        ("NON_LOOPBACK_WITHOUT_TOKEN", None, ["on the queen"]),
        ("A_NEWER_CODE", None, ["A_NEWER_CODE"]),
    ],
)
def test_refused_token_is_one_problem_with_advice(code: str, token: str | None, words: list[str]) -> None:
    no = refusal(code)
    findings = findings_with(pools=no, nodes=no, token=token, local=None, reachability={})
    (finding,) = (finding for finding in findings if finding.level is not OK)
    assert (finding.level, finding.subject) == (PROBLEM, "token")
    assert all(word in f"{finding.text} {finding.mend}" for word in words)


def test_unconfigured_machine_advice_names_pools_file() -> None:
    (finding,) = pool_findings(Observations("http://q", pools=pools()))
    assert all(path in finding.mend for path in (POOLS_FILE, POOLS_EXAMPLE))


PROBLEM_CASES: dict[str, tuple[dict[str, Any], list[tuple[Level, str]]]] = {
    "queen not ready": ({"ready": Readiness(ready=False, reasons=["no"])}, [(PROBLEM, "queen")]),
    "readiness not answered": ({"ready": NO_ANSWER}, [(PROBLEM, "queen")]),
    "another release": ({"own_version": "9"}, [(WARNING, "version")]),
    "clock ahead": ({"clock_ahead_s": 5.1}, [(WARNING, "clock")]),
    "clock behind": ({"clock_ahead_s": -5.1}, [(WARNING, "clock")]),
    "clock unknown": ({"clock_ahead_s": None}, []),
    "no pools": ({"pools": pools()}, [(PROBLEM, "pools")]),
    "pools not answered": ({"pools": NO_ANSWER}, [(PROBLEM, "pools")]),
    "nodes not answered": ({"nodes": NO_ANSWER}, [(PROBLEM, "nodes")]),
    "queen without node support": (
        {"nodes": CommandError("no", "", ExitStatus.UNAVAILABLE, code="NOT_FOUND")},
        [(WARNING, "nodes")],
    ),
    "node not registered": ({"nodes": nodes()}, [(PROBLEM, "this node")]),
    "pool-managerd not answering": (
        {"local": LocalNode("http://x", expected=True, ready=NO_ANSWER)},
        [(PROBLEM, "this node")],
    ),
    "pool-managerd not ready": (
        {"local": LocalNode("http://x", expected=False, ready=Readiness(ready=False, reasons=["GPU"]))},
        [(WARNING, "this node")],
    ),
}


@pytest.mark.parametrize("name", PROBLEM_CASES)
def test_each_problem_is_reported_once(name: str) -> None:
    changed, unhealthy = PROBLEM_CASES[name]
    assert unhealthy_with(**changed) == unhealthy


def local_node(standing: object = None, **changed: Any) -> LocalNode:
    """Return this machine as a node whose pool-managerd reports `standing`."""
    defaults = {"ready": READY, "machine_id": "0" * 32, "standing": standing or NO_ANSWER}
    return LocalNode("http://127.0.0.1:9200", **{"expected": False, **defaults, **changed})


def cloud(**changed: Any) -> NodeStanding:
    defaults = {"node_id": "gpu-1", "machine_id": "0" * 32, "queen_url": "http://q:8080", "registered": True}
    return NodeStanding(profile="cloud", version=VERSION, **{**defaults, **changed})


HOME = NodeStanding(profile="home", version=VERSION)
REFUSED = cloud(registered=False, problem="it answers 401: the token is another one (this node's is token_fp6=1a2b3c)")
OTHER_MACHINE = nodes(node(machine_id="1" * 32))

LOCAL_NODE_CASES: dict[str, tuple[dict[str, Any], Level, list[str]]] = {
    "registered": ({"local": local_node(cloud())}, OK, ["the queen at http://q:8080 answers it"]),
    "found by machine id": (
        {"local": local_node()},
        OK,
        ["registered with the queen as gpu-1: online", "http://gpu-1:9200"],
    ),
    "not reached by queen": (
        {"local": local_node(), "reachability": {}},
        OK,
        ["registered with the queen as gpu-1: online"],
    ),
    "refused by queen": (
        {"local": local_node(REFUSED), "nodes": nodes()},
        PROBLEM,
        ["401", "token_fp6=1a2b3c", "both logs"],
    ),
    "queen unreachable": ({"local": local_node(cloud(problem="no route to host"))}, WARNING, ["no route to host"]),
    "not registered yet": ({"local": local_node(cloud(registered=False))}, WARNING, ["registering with"]),
    "registered with another queen": (
        {"local": local_node(cloud()), "nodes": nodes()},
        PROBLEM,
        ["gpu-1 is not registered"],
    ),
    "node id in use": (
        {"local": local_node(cloud()), "nodes": OTHER_MACHINE},
        PROBLEM,
        ["another machine registered as gpu-1", "nodes remove gpu-1"],
    ),
    "node id of environment in use": (
        {"local": local_node(node_id="gpu-1"), "nodes": OTHER_MACHINE},
        PROBLEM,
        ["another machine registered as gpu-1"],
    ),
    "other profile": (
        {"local": local_node(HOME), "nodes": OTHER_MACHINE},
        WARNING,
        ["HOME_PROFILE", "POOL_MANAGERD_"],
    ),
    "token refused by pool-managerd": (
        {"local": local_node(CommandError("BAD_TOKEN: no", "", ExitStatus.NO_PERMISSION, code="BAD_TOKEN"))},
        PROBLEM,
        ["refuses the token that the queen accepts"],
    ),
    "registered, but not running": (
        {"local": local_node(ready=NO_ANSWER)},
        PROBLEM,
        ["systemctl status pool-managerd"],
    ),
}


@pytest.mark.parametrize("name", LOCAL_NODE_CASES)
def test_local_node_problem_is_reported_once_with_advice(name: str) -> None:
    changed, level, words = LOCAL_NODE_CASES[name]
    findings = [finding for finding in findings_with(**changed) if finding.subject == "this node"]
    unhealthy = [finding for finding in findings if finding.level is not OK]
    assert [finding.level for finding in unhealthy] == ([] if level is OK else [level])
    text = " ".join(f"{finding.text}. {finding.mend}" for finding in unhealthy or findings)
    assert [word for word in words if word not in text] == []


def test_machine_without_sign_of_a_node_is_not_mentioned() -> None:
    unrelated = local_node(ready=NO_ANSWER)
    assert not [f for f in findings_with(local=unrelated, nodes=OTHER_MACHINE) if f.subject == "this node"]
    home_node = local_node(HOME)
    findings = [f for f in findings_with(local=home_node, nodes=nodes(), reachability={}) if f.subject == "this node"]
    assert [(f.level, f.text) for f in findings] == [
        (OK, "pool-managerd at http://127.0.0.1:9200 is ready, HOME_PROFILE")
    ]


SPANS = st.timedeltas(timedelta(-400), timedelta(400))


@given(SPANS)
def test_certificate_is_reported_30_days_before_expiry(left: timedelta) -> None:
    now = datetime(2026, 11, 28, tzinfo=UTC)
    certificate = Certificate("that of queen-rbee", now + left, "Renew it.")
    (finding,) = (f for f in findings_with(certificates=[certificate], now=now) if f.subject == "certificate")
    expected = PROBLEM if left < timedelta(0) else WARNING if left <= timedelta(30) else OK
    assert (finding.level, finding.mend) == (expected, "" if expected is OK else "Renew it.")
    assert finding.text.startswith(f"that of queen-rbee end{'ed' if left < timedelta(0) else 's'} on ")


NODE_CASES: dict[str, tuple[dict[str, object], object, Level, list[str]]] = {
    "offline": ({"status": "offline"}, UNREACHABLE, PROBLEM, ["last heartbeat at", "orchctl nodes remove gpu-1"]),
    "offline but reachable": ({"status": "offline"}, REACHED, PROBLEM, ["whether it can reach the queen"]),
    "failed": (
        {"status": "failed", "pools": [{**SNAPSHOT, "last_error": "no GPU"}]},
        REACHED,
        PROBLEM,
        ["no GPU", "engine-provisioner"],
    ),
    "draining": ({"status": "draining"}, REACHED, WARNING, ["orchctl resume --node gpu-1"]),
    "registering": ({"status": "registering"}, REACHED, WARNING, ["no heartbeat"]),
    "late": ({"age_ms": 30_001}, REACHED, WARNING, ["late", "interval is 10 s"]),
    "unreachable": ({}, UNREACHABLE, PROBLEM, ["no route to host", "POOL_MANAGERD_ADVERTISE_URL"]),
    "reachability unknown": ({}, NO_ANSWER, WARNING, ["no answer"]),
    "wrong clock": ({"clock_skew_ms": -9000}, REACHED, WARNING, ["9 s behind the queen's", "NTP"]),
    "other release": ({"version": "0.0.9"}, REACHED, WARNING, ["0.0.9"]),
}


@pytest.mark.parametrize("name", NODE_CASES)
def test_node_problem_has_text_and_advice(name: str) -> None:
    changed, reach, level, words = NODE_CASES[name]
    findings = [
        f for f in findings_with(nodes=nodes(node(**changed)), reachability={"gpu-1": reach}) if f.level is not OK
    ]
    (finding,) = findings
    assert (finding.level, finding.subject) == (level, "node gpu-1")
    assert [word for word in words if word not in f"{finding.text}. {finding.mend}"] == []


POOL_CASES: dict[str, tuple[dict[str, object], Level, str]] = {
    "failed": ({"state": "failed", "ready": False, "last_error": "no\nmodel"}, PROBLEM, "failed: no model"),
    "offline": ({"state": "offline", "ready": False}, PROBLEM, "offline"),
    "starting": ({"state": "starting", "ready": False, "last_error": "loading"}, WARNING, "not ready: loading"),
    "draining": ({"draining": True}, WARNING, "orchctl resume b --node gpu-1"),
    "circuit open": ({"circuit": "open"}, PROBLEM, "no tasks until it is healthy"),
    "circuit half open": ({"circuit": "half-open"}, WARNING, "no tasks until its health check has ended"),
}


@pytest.mark.parametrize("others", [(), (pool(),)], ids=["alone", "beside a ready pool"])
def test_unloaded_pool_is_ok(others: tuple[PoolStatus, ...]) -> None:
    known = pools(*others, pool(pool_id="b", state="unloaded", live=False, ready=False))
    assert [finding for finding in findings_with(pools=known) if finding.level is not OK] == []
    (summary,) = (finding for finding in findings_with(pools=known) if finding.subject == "pools")
    assert summary.text == f"{len(others)} of {len(others) + 1} ready, 1 unloaded"


@pytest.mark.parametrize("name", POOL_CASES)
def test_unhealthy_pool_is_reported_beside_healthy_one(name: str) -> None:
    changed, level, word = POOL_CASES[name]
    (finding,) = (f for f in findings_with(pools=pools(pool(), pool(pool_id="b", **changed))) if f.level is not OK)
    assert (finding.level, finding.subject) == (level, "pool b on gpu-1")
    assert word in f"{finding.text}. {finding.mend}"


def test_absent_queen_leaves_only_local_findings() -> None:
    findings = findings_with(version=NO_ANSWER, ready=NO_ANSWER, pools=NO_ANSWER, nodes=NO_ANSWER, reachability={})
    assert [(finding.level, finding.subject) for finding in findings] == [(PROBLEM, "queen"), (OK, "this node")]
    assert "Is it running?" in findings[0].mend


TEXTS = st.text(max_size=20)
POOLS: st.SearchStrategy[PoolStatus] = st.builds(
    pool,
    pool_id=st.sampled_from("abc"),
    node_id=st.sampled_from(["x", None]),
    state=st.sampled_from(PoolState),
    ready=st.booleans(),
    draining=st.booleans(),
    circuit=st.sampled_from(["closed", "open", "half-open"]),
    last_error=st.none() | TEXTS,
)
NODES: st.SearchStrategy[NodeView] = st.builds(
    node,
    node_id=TEXTS,
    status=st.sampled_from(NodeStatus),
    version=TEXTS,
    age_ms=st.integers(0, 10**9),
    clock_skew_ms=st.none() | st.integers(-(10**6), 10**6),
    last_heartbeat_at=st.none() | st.just("2026-11-25T09:00:00Z"),
    pools=st.lists(st.just(SNAPSHOT), max_size=2),
)
FAILURES = st.sampled_from([NO_ANSWER, refusal("BAD_TOKEN"), CommandError("NOT_FOUND: no", "", ExitStatus.NO_INPUT)])


def lists(make: Callable[..., Any], parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(lambda given: make(*given), st.lists(parts, max_size=4))


STANDINGS = st.builds(
    NodeStanding,
    profile=st.sampled_from(["home", "cloud"]),
    version=TEXTS,
    node_id=st.none() | TEXTS,
    machine_id=st.none() | st.just("0" * 32),
    queen_url=st.none() | TEXTS,
    registered=st.booleans(),
    problem=st.none() | TEXTS,
)
OBSERVATIONS = st.builds(
    replace,
    st.just(HEALTHY),
    token=st.none() | TEXTS,
    clock_ahead_s=st.none() | st.floats(-1e9, 1e9),
    version=FAILURES | st.builds(Version, version=TEXTS, api_version=TEXTS),
    ready=FAILURES | st.builds(Readiness, ready=st.booleans(), reasons=st.lists(TEXTS, max_size=2)),
    pools=FAILURES | lists(pools, POOLS),
    nodes=FAILURES | lists(nodes, NODES),
    reachability=st.dictionaries(TEXTS, st.sampled_from([REACHED, UNREACHABLE, NO_ANSWER])),
    local=st.none() | st.just(HEALTHY.local) | st.builds(local_node, st.none() | STANDINGS, node_id=st.none() | TEXTS),
    certificates=st.lists(st.builds(Certificate, TEXTS, st.datetimes(timezones=st.just(UTC)), st.just("Renew it."))),
)


@given(OBSERVATIONS)
def test_every_unhealthy_finding_has_advice_and_one_line(observed: Observations) -> None:
    findings = [*all_findings(observed)]
    assert all(bool(finding.mend) is (finding.level is not OK) for finding in findings)
    lines = format_findings(findings).split("\n")
    assert [line.split()[0] for line in lines] == [finding.level for finding in findings]
    report = make_report("", findings)
    assert report.problems + report.warnings == sum(finding.level is not OK for finding in findings)


@given(OBSERVATIONS)
def test_failed_pools_and_offline_nodes_are_problems(observed: Observations) -> None:
    bad = {finding.subject for finding in all_findings(observed) if finding.level is PROBLEM}
    if isinstance(observed.version, CommandError):
        assert "queen" in bad
        return
    if isinstance(observed.pools, PoolList):
        usable = any(pool.ready or pool.state is PoolState.UNLOADED for pool in observed.pools.pools)
        assert bool({"pools"} & bad) is not usable
        failed = [pool for pool in observed.pools.pools if pool.state is PoolState.FAILED]
        assert all({f"pool {pool.pool_id}", f"pool {pool.pool_id} on {pool.node_id}"} & bad for pool in failed)
    if isinstance(observed.nodes, NodeList):
        offline = [node for node in observed.nodes.nodes if node.status is NodeStatus.OFFLINE]
        assert {f"node {node.node_id}" for node in offline} <= bad
