"""orchctl at a terminal and in scripts, against the three daemons and a real engine."""

import json
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engines.llama_server import Archive
from tests.integration.home import Home, home
from tests.unit.orchctl.running import command
from tests.unit.orchctl.terminal import CTRL_C, CTRL_D, terminal

SHORT = ("--max-tokens", "6", "--seed", "1", "--temperature", "0")
POOLING_FLAGS = ("--pooling", "mean")
WORKLOADS = ("completion", "embedding")
LONG = ("--max-tokens", "7000")
LONG_CONTEXT = ("--override-kv", "llama.context_length=int:8192")
"""A longer context than the model has, for long answers. The text does not matter."""


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, tiny_model: Path) -> Iterator[Home]:
    """A home with a fast model that also serves embeddings."""
    with home(
        tmp_path_factory.mktemp("fast"), llama_server_tar, tiny_model, flags=POOLING_FLAGS, workloads=WORKLOADS
    ) as running:
        yield running


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory, llama_server_tar: Archive, slow_model: Path) -> Iterator[Home]:
    """A home with one slot, which a long answer occupies."""
    directory = tmp_path_factory.mktemp("slow")
    with home(directory, llama_server_tar, slow_model, slots=1, ctx=8192, flags=LONG_CONTEXT) as running:
        yield running


@pytest.fixture
def restarting(slow: Home) -> Home:
    """The home `slow` for a test that kills or stops the queen; it runs when the test begins."""
    if "queen-rbee" not in slow.processes:
        slow.start("queen-rbee")
    slow.until_ready()
    return slow


def out(running: Home, *words: str, stdin: str = "") -> str:
    """Run orchctl, check that it succeeds without warnings, and return its output."""
    ended = running.orchctl(*words, stdin=stdin)
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    return ended.stdout


def out_json(running: Home, *words: str, stdin: str = "") -> Any:
    """Run orchctl with --json and return the parsed output."""
    return json.loads(out(running, *words, "--json", stdin=stdin))


def state_of(running: Home, task_id: str) -> str:
    return str(view_of(running, task_id)["state"])


def view_of(running: Home, task_id: str) -> dict[str, Any]:
    """Return the task as the queen shows it. To poll orchctl would take a process each time."""
    view: dict[str, Any] = running.ask("GET", f"/v2/tasks/{task_id}")[1]
    return view


def test_every_listed_model_can_chat(fast: Home) -> None:
    names = [model["id"] for model in out_json(fast, "models")["data"]]
    assert "default" in names
    for name in names:
        assert out(fast, "chat", "--model", name, *SHORT, stdin="hello\n").endswith("\n")


def test_chat_from_pipe_answers_each_line_with_counts(fast: Home) -> None:
    text = out(fast, "chat", *SHORT, stdin="hello\nagain\n")
    lines = out(fast, "chat", *SHORT, "--json", stdin="hello\nagain\n").splitlines()
    first, second = (json.loads(line) for line in lines)
    said = [answer["choices"][0]["message"]["content"] for answer in (first, second)]
    assert text == "".join(f"{words}\n".replace("\n\n", "\n") for words in said)
    assert first["usage"]["completion_tokens"] == 6
    assert second["usage"]["prompt_tokens"] > first["usage"]["prompt_tokens"]


def test_chat_with_unknown_model_names_it_and_exits_with_66(fast: Home) -> None:
    ended = fast.orchctl("chat", "--model", "nobody", stdin="hello\n")
    as_json = fast.orchctl("chat", "--model", "nobody", "--json", stdin="hello\n")
    assert (ended.returncode, ended.stdout) == (66, "")
    assert "nobody" in ended.stderr
    assert json.loads(as_json.stdout)["error"]["code"] == "model_not_found"


def test_embeddings_are_printed_one_per_line(fast: Home) -> None:
    lines = out(fast, "submit", "--workload", "embedding", stdin="hello\nworld\n").splitlines()
    assert [len(json.loads(line)) for line in lines] == [64, 64]
    assert lines[0] != lines[1]


def test_rerank_sorts_documents_by_score(tmp_path: Path, llama_server_tar: Archive, tiny_model: Path) -> None:
    with home(tmp_path, llama_server_tar, tiny_model, flags=["--reranking"]) as running:
        text = out(running, "submit", "--workload", "rerank", "hello", "one", "two", "three")
    header, *rows = (line.split() for line in text.splitlines())
    assert header == ["SCORE", "INDEX", "DOCUMENT"]
    assert {row[2] for row in rows} == {"one", "two", "three"}
    assert [float(row[0]) for row in rows] == sorted((float(row[0]) for row in rows), reverse=True)


def test_tasks_are_listed_in_pages_and_shown_whole(fast: Home) -> None:
    ids = [out(fast, "submit", "--detach", *SHORT, "hello").strip() for _ in range(3)]
    fast.until(lambda: all(state_of(fast, task_id) == "done" for task_id in ids))
    newest = out_json(fast, "tasks", "--limit", "2", "--state", "done")
    assert [task["task_id"] for task in newest["tasks"]] == [ids[2], ids[1]]
    following = out_json(fast, "tasks", "--limit", "1", "--before", newest["next"])
    assert following["tasks"][0]["task_id"] == ids[0]
    every = out(fast, "tasks", "--all", "--limit", "2").splitlines()
    assert [line.split()[0] for line in every[1:4]] == ids[::-1]
    assert out_json(fast, "tasks", ids[0])["state"] == "done"
    whole = dict(line.split(maxsplit=1) for line in out(fast, "tasks", ids[0]).splitlines())
    assert (whole["state"], whole["usage.tokens_out"], whole["pool_id"]) == ("done", "6", "default")


def test_session_is_limited_used_up_and_deleted(fast: Home) -> None:
    session = str(uuid.uuid4())
    assert out_json(fast, "sessions", session, "--max-turns", "2", "--tokens-budget", "5000")["turns"] == 0
    out(fast, "chat", "--session", session, *SHORT, stdin="hello\n")
    out(fast, "submit", "--session", session, *SHORT, "hello")
    (mine,) = (one for one in out_json(fast, "sessions")["sessions"] if one["session_id"] == session)
    assert (mine["turns"], mine["turns_remaining"]) == (2, 0)
    assert mine["tokens_budget_remaining"] < 5000
    assert session in out(fast, "sessions")
    refused = fast.orchctl("submit", "--session", session, "hello")
    assert (refused.returncode, refused.stdout) != (0, "")
    assert refused.stderr
    assert out(fast, "sessions", session, "--delete") == ""
    assert fast.orchctl("sessions", session).returncode == 66


def test_catalog_adds_verifies_and_retires_model(fast: Home, tiny_model: Path) -> None:
    reference = f"file:{tiny_model}"
    added = out_json(fast, "catalog", "add", "bee", reference, "--digest-of", str(tiny_model), "--cost", "2", "--wait")
    assert (added["verification"]["state"], added["cost_per_1k_tokens"]) == ("verified", 2)
    assert out(fast, "submit", "--model", "bee", *SHORT, "hello").strip()
    assert out(fast, "chat", "--model", "bee", *SHORT, stdin="hello\n").strip()
    wrong = fast.orchctl("catalog", "add", "wrong", reference, "--digest", f"sha256:{'0' * 64}", "--wait")
    assert wrong.returncode == 65
    assert "wrong is not verified" in wrong.stderr
    assert out(fast, "catalog", "remove", "wrong") == ""
    assert "bee" in out(fast, "catalog")
    assert out_json(fast, "catalog", "retire", "bee")["state"] == "Retired"
    assert fast.orchctl("submit", "--model", "bee", *SHORT, "hello").returncode != 0
    assert out_json(fast, "catalog", "activate", "bee")["state"] == "Active"
    assert out(fast, "submit", "--model", "bee", *SHORT, "hello").strip()
    assert "default" in out(fast, "catalog", "availability")
    assert out_json(fast, "catalog", "verify", "bee", "--wait")["verification"]["state"] == "verified"
    assert out(fast, "catalog", "remove", "bee") == ""
    assert fast.orchctl("catalog", "show", "bee").returncode == 66


def test_artifact_is_stored_once_and_found_again(fast: Home) -> None:
    words = ("artifacts", "put", "-", "--kind", "note", "--tag", "mine")
    first, second = (out(fast, *words, stdin='{"a": [1, "é"]}').strip() for _ in range(2))
    assert first == second
    found = out_json(fast, "artifacts", "--kind", "note", "--tag", "mine")
    assert [head["id"] for head in found["artifacts"]] == [first]
    assert out_json(fast, "artifacts", "show", first)["content"] == {"a": [1, "é"]}
    assert fast.orchctl("artifacts", "show", "0" * 64).returncode == 66


def test_cancel_ends_running_task_and_unknown_one_exits_66(slow: Home) -> None:
    task_id = out(slow, "submit", "--detach", *LONG, "hello").strip()
    slow.until(lambda: state_of(slow, task_id) == "running")
    unknown = slow.orchctl("cancel", str(uuid.uuid4()), task_id)
    assert unknown.returncode == 66
    assert state_of(slow, task_id) == "cancelled"
    assert out(slow, "cancel", task_id) == ""


def test_terminal_shows_queue_position_then_only_answer(slow: Home) -> None:
    blocking = [out(slow, "submit", "--detach", *LONG, "hello").strip() for _ in range(3)]
    with terminal("submit", "--url", slow.url, *SHORT, "hello") as person:
        person.wait_for("3rd in the queue, about ")
        out(slow, "cancel", blocking[1])
        person.wait_for("2nd in the queue, about ")
        out(slow, "cancel", blocking[2])
        person.wait_for("1st in the queue, about ")
        out(slow, "cancel", blocking[0])
        assert person.end() == 0
    assert "in the queue" not in " ".join(person.screen)
    assert person.screen[0].strip()


def test_terminal_chat_waits_answers_and_is_interrupted(slow: Home) -> None:
    blocking = out(slow, "submit", "--detach", *LONG, "hello").strip()
    slow.until(lambda: state_of(slow, blocking) == "running")
    with terminal("chat", "--url", slow.url, *LONG) as person:
        person.wait_for("/help lists the commands")
        person.wait_for("> ")
        person.type(b"hello\r")
        person.wait_for("1st in the queue")
        out(slow, "cancel", blocking)
        (mine,) = slow.until(lambda: slow.ask("GET", "/v2/tasks?state=running")[1]["tasks"])
        slow.until(lambda: view_of(slow, mine["task_id"])["timings"]["first_token_ms"])
        person.type(CTRL_C)
        slow.until(lambda: state_of(slow, mine["task_id"]) == "cancelled", within_s=10)
        person.wait_for("\r\n> ")
        person.type(CTRL_D)
        assert person.end() == 0


def test_capabilities_match_pool(fast: Home) -> None:
    (pool,) = out_json(fast, "capabilities")["pools"]
    assert (pool["pool_id"], pool["slots"], pool["ctx_max"]) == ("default", 2, 1024)
    assert [line.split()[0] for line in out(fast, "capabilities").splitlines()[:2]] == ["POOL", "default"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_terminated_submit_cancels_its_task_first(slow: Home, number: signal.Signals) -> None:
    task_id = str(uuid.uuid4())
    words = ("submit", "--url", slow.url, *LONG, "--task-id", task_id, "hello")
    with subprocess.Popen(command(*words), env=slow.environ, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.read(1)
        process.send_signal(number)
        assert process.wait(30) == -number
    assert state_of(slow, task_id) == "cancelled"


def test_waiting_submit_reconnects_after_queen_is_killed(restarting: Home) -> None:
    blocking = out(restarting, "submit", "--detach", *LONG, "hello").strip()
    with terminal("submit", "--url", restarting.url, *SHORT, "hello") as person:
        person.wait_for("1st in the queue")
        kill_queen(restarting)
        person.wait_for("connection lost, reconnecting")
        restarting.start("queen-rbee")
        person.wait_for("1st in the queue")
        out(restarting, "cancel", blocking)
        assert person.end() == 0
    assert [bool(line) for line in person.screen] == [True, False]


def test_partial_answer_ends_with_reason_when_queen_is_killed(restarting: Home) -> None:
    with terminal("submit", "--url", restarting.url, *LONG, "hello") as person:
        restarting.until(lambda: person.read_output(0.1))
        kill_queen(restarting)
        restarting.start("queen-rbee")
        assert person.end() == 75
    answer, *words = [line for line in person.screen if line]
    assert answer
    assert words == [
        "orchctl: the task failed: WORKER_RESET: queen-rbee restarted after a part of the answer had been sent",
        "orchctl: The task can be submitted again.",
    ]


def kill_queen(running: Home) -> None:
    """Kill the queen with SIGKILL."""
    process = running.processes.pop("queen-rbee")
    process.kill()
    process.wait()


def test_commands_without_queen_say_what_to_check(restarting: Home) -> None:
    assert restarting.stop("queen-rbee") == 0
    for words in (["models"], ["chat"], ["tasks"], ["sessions"], ["catalog"], ["artifacts"]):
        ended = restarting.orchctl(*words)
        assert (ended.returncode, ended.stdout) == (69, "")
        assert "systemctl status queen-rbee" in ended.stderr
