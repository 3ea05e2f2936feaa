"""-o and --watch on every command that lists things."""

import json
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest
import yaml

from orchctl.command import CliCommand
from orchctl.lists import LIST_ARGUMENTS
from orchctl.parser import COMMANDS, build_parser
from tests.unit.orchctl.commands.test_pools import LIST, POOL
from tests.unit.orchctl.commands.test_tasks import QUEUED, page
from tests.unit.orchctl.running import LIMIT_S, command, environment, run
from tests.unit.orchctl.scripted_queen import TASK_ID, ScriptedQueen, error, reply, serve
from tests.unit.orchctl.terminal import CTRL_C, terminal

LISTS = {"ps", "pools", "pool", "nodes", "gpus", "operations", "tasks", "sessions", "models", "status", "capabilities"}
LISTS |= {"catalog", "catalog list", "catalog availability", "artifacts", "artifacts list", "batch", "batch status"}
LISTS |= {"key", "key list", "usage"}
POOLS = {"GET /v2/pools": [reply(200, {**LIST, "pools": [POOL, {**POOL, "pool_id": "other", "node_id": "b"}, POOL]})]}


def paths(commands: tuple[CliCommand, ...], before: str = "") -> Iterator[tuple[str, CliCommand]]:
    for each in commands:
        yield f"{before}{each.name}", each
        yield from paths(tuple(each.subcommands), f"{before}{each.name} ")


def test_every_list_command_has_the_options() -> None:
    found = {path for path, each in paths(COMMANDS) if all(argument in each.arguments for argument in LIST_ARGUMENTS)}
    assert found == LISTS


def test_json_option_is_the_same_as_output_json() -> None:
    with serve(POOLS) as queen:
        assert run("pools", "-o", "json", "--url", queen.url) == run("pools", "--json", "--url", queen.url)
        assert json.loads(run("pools", "--json", "--url", queen.url).out)["pools"][0]["pool_id"] == POOL["pool_id"]


def test_yaml_is_that_of_the_json() -> None:
    with serve(POOLS) as queen:
        as_json, as_yaml = (run("pools", "-o", form, "--url", queen.url).out for form in ("json", "yaml"))
    assert yaml.safe_load(as_yaml) == json.loads(as_json)


def test_name_prints_each_id_once() -> None:
    with serve(POOLS) as queen:
        assert run("pools", "-o", "name", "--url", queen.url).out == f"{POOL['pool_id']}\nother\n"


def test_pages_are_yaml_documents() -> None:
    script = {
        "GET /v2/tasks?limit=500": [page(QUEUED, following="x")],
        "GET /v2/tasks?limit=500&before=x": [page(QUEUED)],
    }
    with serve(script) as queen:
        text = run("tasks", "--all", "-o", "yaml", "--url", queen.url).out
    assert [document["tasks"][0]["task_id"] for document in yaml.safe_load_all(text)] == [str(TASK_ID)] * 2


def test_empty_list_has_no_names() -> None:
    with serve({"GET /v2/pools": [reply(200, {"pools": [], "count": 0})]}) as queen:
        assert run("pools", "-o", "name", "--url", queen.url).out == ""


@pytest.mark.parametrize(
    ("words", "seconds"), [(["--watch"], 2), (["--watch=0.5"], 0.5), (["--watch", "-o", "name"], 2), ([], None)]
)
def test_watch_has_value_only_after_equals_sign(words: list[str], seconds: float | None) -> None:
    assert build_parser().parse_args(["pools", *words]).watch == seconds
    options = build_parser().parse_args(["tasks", *words, "an-id"])
    assert (options.watch, options.id) == (seconds, "an-id")


@pytest.mark.parametrize("value", ["0", "-1", "nan", "soon", "100000"])
def test_invalid_interval_exits_64(value: str) -> None:
    result = run("pools", f"--watch={value}")
    assert result.status == 64
    assert "allowed: 0.1 to 86400 seconds" in result.err


def watched(queen: ScriptedQueen, line: str, times: int, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command with --watch in a pipe, and interrupt it after the given number of requests."""
    with subprocess.Popen(
        command(*words, "--watch=0.1", "--url", queen.url),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        output: list[str] = []
        assert process.stdout
        reader = threading.Thread(target=output.extend, args=[process.stdout])
        reader.start()
        queen.wait_for(line, times)
        process.send_signal(signal.SIGINT)
        status = process.wait(LIMIT_S)
        reader.join()
        assert process.stderr
        return subprocess.CompletedProcess([], status, "".join(output), process.stderr.read())


def test_watch_in_pipe_prints_tables_with_lines_between() -> None:
    with serve(POOLS) as queen:
        once = run("pools", "--url", queen.url).out
        result = watched(queen, "GET /v2/pools", 4, "pools")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{once}---\n{once}")


def test_watched_json_is_one_object_a_line() -> None:
    with serve(POOLS) as queen:
        result = watched(queen, "GET /v2/pools", 3, "pools", "-o", "json")
    assert result.returncode == 0
    assert all(json.loads(line)["pools"] for line in result.stdout.splitlines())


def test_watch_survives_a_queen_that_is_away() -> None:
    away = error(503, "ADMISSION_REJECT", "away", retriable=True)
    with serve({"GET /v2/pools": [POOLS["GET /v2/pools"][0], away, *POOLS["GET /v2/pools"]]}) as queen:
        result = watched(queen, "GET /v2/pools", 4, "pools")
    assert result.returncode == 0
    assert result.stderr == "orchctl: ADMISSION_REJECT: away\n"
    assert "---\n" in result.stdout


def test_watch_fails_if_the_first_look_does() -> None:
    result = run("pools", "--watch", "--url", "http://127.0.0.1:9")
    assert (result.status, result.out) == (69, "")


@pytest.mark.parametrize("words", [("nodes", "remove", "x", "--watch"), ("gpus", "--watch", "unfence", "x")])
def test_watch_changes_nothing(words: tuple[str, ...]) -> None:
    with serve({}) as queen:
        result = run(*words, "--url", queen.url)
        assert (result.status, queen.requests) == (64, [])
    assert "with --watch a command is repeated, so it may only look" in result.err


def test_watch_on_terminal_redraws_in_place() -> None:
    states = [reply(200, {**LIST, "pools": [{**POOL, "pool_id": name}]}) for name in ("first", "second")]
    with (
        serve({"GET /v2/pools": states}) as queen,
        terminal("pools", "--watch=0.1", "--url", queen.url, columns=60, term="xterm") as tty,
    ):
        tty.wait_for("first")
        tty.wait_for("\x1b[2F")
        tty.wait_for("second")
        tty.type(CTRL_C)
        assert tty.end() == 0
    assert b"Traceback" not in tty.output


def test_watch_on_dumb_terminal_prints_below() -> None:
    with serve(POOLS) as queen, terminal("pools", "--watch=0.1", "--url", queen.url, columns=60) as tty:
        tty.wait_for("---")
        tty.type(CTRL_C)
        assert tty.end() == 0
    assert b"\x1b" not in tty.output
