"""A daemon as a process: command line, refusals, signals and exit statuses."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llama_orch import VERSION

MODULE = "tests.unit.llama_orch.sample_daemon"
WRONG = {"ORCHD_ADMISSION_CAPACITY": "0", "LLORCH_API_TOKEN": "short-secret", "RUST_LOG": "a=b=c"}
LIMIT_S = 30


def environment(given: dict[str, str]) -> dict[str, str]:
    """Return a minimal environment for Python."""
    return {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "LANG": "C.UTF-8", **given}


def run_to_end(*arguments: str, behaviour: str = "runs", **given: str) -> subprocess.CompletedProcess[str]:
    """Run the daemon to its end."""
    return subprocess.run(
        [sys.executable, "-m", MODULE, behaviour, *arguments],
        env=environment(given),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


@contextmanager
def running(behaviour: str = "runs", **given: str) -> Iterator[subprocess.Popen[str]]:
    """Run the daemon and wait until it is ready."""
    process = subprocess.Popen(
        [sys.executable, "-m", MODULE, behaviour],
        env=environment(given),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def records(text: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in text.splitlines()]


def test_all_problems_are_printed_with_status_78() -> None:
    process = run_to_end(**WRONG)
    assert process.returncode == 78
    lines = process.stderr.splitlines()
    assert lines[0] == "sample-daemon: 3 settings cannot be used:"
    assert sorted(line.split("=")[0].strip() for line in lines[1:]) == sorted(WRONG)
    assert "short-secret" not in process.stderr
    assert process.stdout == ""


def test_problems_are_json_records_in_json_format() -> None:
    process = run_to_end(**WRONG, LLAMA_ORCH_LOG_FORMAT="json")
    assert process.returncode == 78
    found = records(process.stderr)
    assert {record["event"] for record in found} == {"configuration_refused"}
    assert sorted(record["problems"].split("=")[0] for record in found) == sorted(WRONG)
    assert "short-secret" not in process.stderr


def test_problems_are_journal_errors_under_journal(tmp_path: Path) -> None:
    """JOURNAL_STREAM names standard error; without systemd-python the records have prefixes."""
    (tmp_path / "systemd.py").write_text("raise ImportError\n")
    with (tmp_path / "journal").open("w+") as journal:
        there = os.fstat(journal.fileno())
        given = {**WRONG, "JOURNAL_STREAM": f"{there.st_dev}:{there.st_ino}"}
        variables = environment(given)
        variables["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{variables['PYTHONPATH']}"
        command = [sys.executable, "-m", MODULE, "runs"]
        status = subprocess.run(command, env=variables, stderr=journal, timeout=LIMIT_S, check=False).returncode
        journal.seek(0)
        lines = journal.read().splitlines()
    assert status == 78
    assert len(lines) == 3
    assert all(line.startswith("<3>configuration refused: ") for line in lines)


def test_inherited_journal_stream_still_prints_problems() -> None:
    process = run_to_end("--check-config", **WRONG, JOURNAL_STREAM="8:1")
    assert process.returncode == 78
    assert "3 settings cannot be used" in process.stderr


def test_check_config_shows_values_and_sources() -> None:
    process = run_to_end("--check-config", ORCHD_ADMISSION_CAPACITY="7", LLORCH_API_TOKEN="0123456789abcdef")
    assert process.returncode == 0
    assert "ORCHD_ADMISSION_CAPACITY=7  # environment\n" in process.stdout
    assert "ORCHD_ADMISSION_POLICY=drop-lru  # default\n" in process.stdout
    assert "LLORCH_API_TOKEN=token_fp6=9f9f51  # environment\n" in process.stdout
    assert "0123456789abcdef" not in process.stdout + process.stderr


MISSPELT = {"ORCHD_ADMISION_CAPACITY": "7", "LLORCH_TOKEN": "0123456789abcdef"}
WORDS = (
    "LLORCH_TOKEN (did you mean LLORCH_API_TOKEN?), ORCHD_ADMISION_CAPACITY (did you mean ORCHD_ADMISSION_CAPACITY?)"
)


def test_misspelt_variables_give_one_notice() -> None:
    with running(**MISSPELT, POOL_MANAGERD_NODE_ID="gpu-node-1", ENGINE_PROVISIONER_GPU_MASK="cpu") as process:
        process.terminate()
        _out, err = process.communicate(timeout=LIMIT_S)
    (record,) = records(err)
    assert (record["event"], record["level"], record["variables"]) == ("settings_unknown", "warning", WORDS)
    assert MISSPELT["LLORCH_TOKEN"] not in err


def test_check_config_prints_notices_and_succeeds() -> None:
    process = run_to_end("--check-config", **MISSPELT, ORCHESTRATORD_NODE_TIMEOUT_MS="5000")
    unknown, inert = process.stderr.splitlines()
    assert (
        unknown == f"sample-daemon: no daemon knows these variables, which may be misspelt and have no effect: {WORDS}"
    )
    assert inert.endswith("have no effect in HOME_PROFILE: ORCHESTRATORD_NODE_TIMEOUT_MS")
    assert process.returncode == 0
    assert "ADMISION" not in process.stdout


@pytest.mark.parametrize("form", ["auto", "json"])
def test_refusal_also_names_misspelt_variables(form: str) -> None:
    given = {"ORCHESTRATORD_CLOUD_PROFILE": "1", "LLORCH_API_TOKN": "0123456789abcdef"}
    process = run_to_end(**given, **({} if form == "auto" else {"LLAMA_ORCH_LOG_FORMAT": form}))
    assert process.returncode == 78
    assert "LLORCH_API_TOKEN: is not set" in process.stderr
    assert "LLORCH_API_TOKN (did you mean LLORCH_API_TOKEN?)" in process.stderr


def test_version_help_and_usage_error_statuses() -> None:
    assert run_to_end("--version").stdout == f"sample-daemon (llama-orch) {VERSION}\n"
    assert "--check-config" in run_to_end("--help").stdout
    wrong = run_to_end("--chek")
    assert wrong.returncode == 64
    assert "--chek" in wrong.stderr


def run_with_stdout(place: str, *arguments: str, **given: str) -> tuple[int, str]:
    """Run the daemon with standard output to `place`; return exit status and standard error."""
    with open(place, "w") as out:
        run_to_end = subprocess.run(
            [sys.executable, "-m", MODULE, "runs", *arguments],
            env=environment(given),
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    return run_to_end.returncode, run_to_end.stderr


@pytest.mark.parametrize("option", ["--check-config", "--version", "--help"])
def test_write_error_is_reported_in_one_line(option: str) -> None:
    words = "sample-daemon: cannot write to standard output: No space left on device\n"
    assert run_with_stdout("/dev/full", option) == (74, words)


@pytest.mark.parametrize(("arguments", "status"), [(["--check-config"], 78), (["--chek"], 64)])
def test_closed_stderr_does_not_change_status(arguments: list[str], status: int) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", MODULE, "runs", *arguments]
        run_to_end = subprocess.run(command, env=environment(WRONG), stderr=full, timeout=LIMIT_S, check=False)
    assert run_to_end.returncode == status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_stops_gracefully(number: signal.Signals, tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(LIMIT_S)
        with running(NOTIFY_SOCKET=path) as process:
            assert manager.recv(1024).startswith(b"READY=1")
            process.send_signal(number)
            assert manager.recv(1024).startswith(b"STOPPING=1")
            out, err = process.communicate(timeout=LIMIT_S)
    assert (process.returncode, out, err) == (0, "stopping\n", "")


def test_second_signal_ends_drain() -> None:
    with running("drains-for-ever") as process:
        process.terminate()
        assert process.stdout
        assert process.stdout.readline() == "stopping\n"
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_internal_error_is_70_with_traceback() -> None:
    process = run_to_end(behaviour="crashes")
    assert process.returncode == 70
    (record,) = records(process.stderr)
    assert record["level"] == "error"
    assert "Traceback" in record["exception"]
    assert "the dispatcher's own fault" in record["exception"]


def test_startup_error_has_status_and_no_traceback() -> None:
    process = run_to_end(behaviour="cannot-start")
    assert process.returncode == 69
    (record,) = records(process.stderr)
    assert record["event"] == "start_failed"
    assert record["message"] == "cannot start: 127.0.0.1:8080 is already in use. Set another port"
    assert "Traceback" not in process.stderr


def test_variables_of_other_profile_give_one_notice() -> None:
    inert = {"ORCHESTRATORD_NODE_TIMEOUT_MS": "5000", "ORCHESTRATORD_STALE_CHECK_INTERVAL_SECS": "5"}
    with running(**inert, ORCHD_RUNTIME_DIR="/run") as process:
        process.terminate()
        _out, err = process.communicate(timeout=LIMIT_S)
    (record,) = records(err)
    assert record["event"] == "settings_without_effect"
    assert record["variables"] == ", ".join(inert)
    assert record["profile"] == "HOME_PROFILE"


def test_variables_of_own_profile_give_no_notice() -> None:
    with running(ORCHD_RUNTIME_DIR="/run") as process:
        process.terminate()
        assert process.communicate(timeout=LIMIT_S)[1] == ""


def test_sighup_reloads_the_running_daemon(tmp_path: Path) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(path)
        manager.settimeout(LIMIT_S)
        with running("reloads", NOTIFY_SOCKET=path, RUST_LOG="info") as process:
            assert manager.recv(1024).startswith(b"READY=1")
            process.send_signal(signal.SIGHUP)
            assert manager.recv(1024).startswith(b"RELOADING=1\nMONOTONIC_USEC=")
            assert manager.recv(1024).startswith(b"READY=1")
            assert process.stderr is not None
            assert "has reloaded its configuration: nothing has changed" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0
