"""HOME_PROFILE without systemd: a pools file starts an engine, and its tokens reach a client through the queen."""

import signal
import subprocess
import sys
from typing import Any
from urllib.request import urlopen

import pytest

from tests.integration.home import Home

LONG = {"prompt": "hello", "max_tokens": 900}


def submit(running: Home, **request: Any) -> dict[str, Any]:
    answer: dict[str, Any]
    status, answer = running.ask("POST", "/v2/tasks", {"prompt": "hello", **request})
    assert status == 202, answer
    return answer


def busy_slots(running: Home) -> int:
    """Return the number of slots that the engine reports as processing."""
    url = running.pool()["replicas"][0]["url"]
    _status, slots = running.ask("GET", "/slots", port=int(url.rpartition(":")[2]))
    return sum(slot["is_processing"] for slot in slots)


def kv_cache_usage(running: Home) -> float:
    """Return the KV cache usage of the only engine, from the metrics of pool-managerd."""
    with urlopen(f"http://127.0.0.1:{running.manager_port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    (line,) = (line for line in lines if line.startswith("kv_cache_usage_ratio{"))
    return float(line.rpartition(" ")[2])


def test_tokens_arrive_in_order_and_match_engine_counts(fast: Home):
    accepted = submit(fast, max_tokens=16, seed=1)
    with fast.stream(accepted["streams"]["sse"]) as stream:
        events = list(stream)
    assert [number for number, _, _ in events] == sorted(number for number, _, _ in events)
    names = [name for _, name, _ in events]
    assert names[0] == "started"
    assert names[-1] == "end"
    tokens = [data for _, name, data in events if name == "token"]
    assert [token["i"] for token in tokens] == list(range(len(tokens)))
    assert events[-1][2]["tokens_out"] == 16
    _status, view = fast.ask("GET", f"/v2/tasks/{accepted['task_id']}")
    assert (view["state"], view["pool_id"], view["usage"]["tokens_out"]) == ("done", "default", 16)


def test_same_seed_gives_same_text(fast: Home):
    texts = [fast.orchctl("submit", "hello", "--seed", "7", "--max-tokens", "20").stdout for _ in range(2)]
    assert texts[0] == texts[1] != ""


def test_resumed_event_stream_has_no_gaps_or_duplicates(fast: Home):
    accepted = submit(fast, max_tokens=32, seed=3)
    with fast.stream(accepted["streams"]["sse"]) as stream:
        whole = list(stream)
    with fast.stream(accepted["streams"]["sse"], {"Last-Event-ID": "7"}) as stream:
        rest = list(stream)
    assert rest == [event for event in whole if event[0] > 7]


def test_only_verbose_readers_get_narration(fast: Home):
    accepted = submit(fast, max_tokens=2)
    with fast.stream(accepted["streams"]["sse"]) as stream:
        plain = [name for _, name, _ in stream]
    with fast.stream(accepted["streams"]["sse_verbose"]) as stream:
        verbose = [name for _, name, _ in stream]
    assert "narration" not in plain
    assert "narration" in verbose


def test_oversized_prompt_fails_task_and_pool_stays_ready(fast: Home):
    accepted = submit(fast, prompt="word " * 5000, max_tokens=4)
    with fast.stream(accepted["streams"]["sse"]) as stream:
        *_, (_, name, data) = stream
    assert (name, data["code"], data["retriable"]) == ("error", "INVALID_PARAMS", False)
    assert fast.pool()["ready"]


def test_orchctl_status_and_pools_show_ready_pool(fast: Home):
    status, pools = fast.orchctl("status"), fast.orchctl("pools")
    assert status.returncode == pools.returncode == 0
    assert "ready" in status.stdout
    assert "default" in pools.stdout
    assert "llamacpp" in pools.stdout


@pytest.mark.parametrize("priority", ["interactive", "batch"])
def test_tasks_beyond_slots_are_queued_and_finish(fast: Home, priority: str):
    accepted = [submit(fast, max_tokens=64, priority=priority) for _ in range(12)]
    for answer in accepted:
        with fast.stream(answer["streams"]["sse"]) as stream:
            assert [name for _, name, _ in stream][-1] == "end"


def test_invalid_request_names_every_wrong_field(fast: Home):
    status, error = fast.ask("POST", "/v2/tasks", {"promt": "x", "max_tokens": 0, "placement": {"mode": "pin"}})
    assert (status, error["code"], error["retriable"]) == (400, "INVALID_PARAMS", False)
    assert {problem["field"] for problem in error["fields"]} == {"promt", "max_tokens", "placement"}
    assert fast.ask("POST", "/v2/tasks", {"workload": "embedding"})[1]["fields"][0]["field"] == "inputs"
    assert fast.ask("POST", "/v2/tasks", {"max_tokens": 5})[1]["fields"][0]["field"] == "prompt"


def test_unsatisfiable_task_is_refused_without_fallback(fast: Home):
    for fields, status, code in (
        ({"model_ref": "no-such-model"}, 400, "INVALID_PARAMS"),
        ({"ctx": 1_000_000}, 400, "INVALID_PARAMS"),
        ({"placement": {"mode": "pin", "pin_pool_id": "nowhere"}}, 409, "POOL_UNAVAILABLE"),
    ):
        answer = fast.ask("POST", "/v2/tasks", {"prompt": "hello", **fields})
        assert (answer[0], answer[1]["code"]) == (status, code)


def test_unknown_paths_get_404_and_wrong_methods_405(fast: Home):
    for method, path, status in (
        ("GET", "/v2/tasks/00000000-0000-4000-8000-000000000000", 404),
        ("GET", "/v2/tasks/no-uuid/events", 404),
        ("POST", "/v2/tasks/no-uuid/cancel", 404),
        ("GET", "/v2/pools/nowhere/health", 404),
        ("GET", "/v2/nowhere", 404),
        ("DELETE", "/v2/tasks", 405),
    ):
        actual, error = fast.ask(method, path)
        assert (actual, bool(error["message"]), bool(error["correlation_id"])) == (status, True, True), path


def test_tasks_are_listed_newest_first_in_pages(fast: Home):
    ids = [submit(fast, max_tokens=1)["task_id"] for _ in range(5)]
    fast.until(lambda: fast.ask("GET", f"/v2/tasks/{ids[-1]}")[1]["state"] == "done")
    _status, first = fast.ask("GET", "/v2/tasks?limit=2&state=done")
    assert [task["task_id"] for task in first["tasks"]] == ids[:2:-1]
    _status, second = fast.ask("GET", f"/v2/tasks?limit=2&before={first['next']}")
    assert [task["task_id"] for task in second["tasks"]] == ids[2:0:-1]
    status, error = fast.ask("GET", "/v2/tasks?state=odd&limit=0")
    assert (status, {problem["field"] for problem in error["fields"]}) == (400, {"state", "limit"})


def test_capabilities_health_and_readiness_match_pool(fast: Home):
    _status, capabilities = fast.ask("GET", "/v2/meta/capabilities")
    (pool,) = capabilities["pools"]
    assert (pool["pool_id"], pool["engine"], pool["ctx_max"], pool["slots"]) == ("default", "llamacpp", 1024, 2)
    _status, health = fast.ask("GET", "/v2/pools/default/health")
    assert (health["live"], health["ready"], health["metrics"]["slots_total"]) == (True, True, 2)
    assert fast.ask("GET", "/ready") == (200, {"ready": True, "reasons": []})


def test_kv_cache_usage_is_exposed_while_task_runs(slow: Home):
    accepted = submit(slow, **LONG)
    assert 0 < slow.until(lambda: kv_cache_usage(slow)) < 1
    slow.ask("POST", f"/v2/tasks/{accepted['task_id']}/cancel")
    slow.until(lambda: kv_cache_usage(slow) == 0)


def test_cancel_frees_slot_and_no_token_follows(slow: Home):
    accepted = submit(slow, **LONG)
    with slow.stream(accepted["streams"]["sse"]) as stream:
        events = iter(stream)
        while next(events)[1] != "token":
            pass
        status, _ = slow.ask("POST", f"/v2/tasks/{accepted['task_id']}/cancel")
        assert status == 204
        names = [name for _, name, _ in events]
    assert names[-1] == "error"
    slow.until(lambda: busy_slots(slow) == 0, within_s=5)
    after, _ = slow.ask("POST", f"/v2/tasks/{accepted['task_id']}/cancel")
    assert after == 204


def test_interrupted_orchctl_cancels_but_lost_reader_does_not(slow: Home):
    accepted = submit(slow, prompt="hello", max_tokens=40)
    with slow.stream(accepted["streams"]["sse"]) as stream:
        next(iter(stream))
    slow.until(lambda: slow.ask("GET", f"/v2/tasks/{accepted['task_id']}")[1]["state"] == "done", within_s=30)
    command = [sys.executable, "-m", "orchctl", "submit", "--url", slow.url, "hello", "--max-tokens", "900"]
    client = subprocess.Popen(command, stdout=subprocess.PIPE, env=slow.environ)
    assert client.stdout is not None
    assert client.stdout.read(1)
    client.send_signal(signal.SIGINT)
    assert client.wait(30) == 130
    client.stdout.close()
    slow.until(lambda: busy_slots(slow) == 0, within_s=5)
    assert slow.ask("GET", "/v2/tasks?state=cancelled")[1]["count"] >= 1


def test_killed_engine_fails_task_restarts_and_serves(slow: Home):
    accepted = submit(slow, **LONG)
    with slow.stream(accepted["streams"]["sse"]) as stream:
        events = iter(stream)
        while next(events)[1] != "token":
            pass
        engine_pid = engine_pid_of(slow)
        subprocess.run(["kill", "-KILL", str(engine_pid)], check=True)
        *_, (_, name, data) = events
    assert (name, data["code"], data["retriable"]) == ("error", "WORKER_RESET", True)
    slow.until(lambda: slow.pool().get("ready") and engine_pid_of(slow) not in (None, engine_pid))
    done = slow.orchctl("submit", "hello", "--max-tokens", "4")
    assert done.returncode == 0, done.stderr


def engine_pid_of(running: Home) -> int | None:
    """Return the pid of the process that listens on the engine's port, or None."""
    port = running.pool()["replicas"][0]["url"].rpartition(":")[2]
    found = subprocess.run(["ss", "-ltnpH", f"sport = :{port}"], capture_output=True, text=True, check=True).stdout
    return int(found.partition("pid=")[2].partition(",")[0]) if "pid=" in found else None


def test_pool_survives_restart_of_pool_managerd_and_queen(fast: Home):
    for name in ("pool-managerd", "queen-rbee"):
        assert fast.stop(name) == 0
        fast.start(name)
        fast.until_ready()
        assert fast.orchctl("submit", "hello", "--max-tokens", "2").returncode == 0
