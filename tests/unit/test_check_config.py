"""--check-config of the three daemons: in this process, and as processes where the process matters."""

import os
import pwd
import re
import subprocess
import sys
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest

from llama_orch.settings.environment_file import parse
from tools.generate import DAEMONS
from tools.generating.documents import default_text

ROOT = Path(__file__).parents[2]
LIMIT_S = 60
LINE = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)  # (default|environment|credential|file|[A-Z][A-Z0-9_]*)")
TOKENS = {name: f"{name}-0123456789abcdef" for name in ("credential", "file", "environment")}
WITH_TOKEN = ("queen-rbee", "pool-managerd")
EVERY_DAEMON = pytest.mark.parametrize("daemon", DAEMONS)


@dataclass(frozen=True)
class Checked:
    """Exit status and output of --check-config."""

    returncode: int
    stdout: str
    stderr: str


def minimal_environment(directory: Path) -> dict[str, str]:
    paths = os.pathsep.join((str(ROOT / "daemons"), *filter(None, sys.path)))
    return {"PATH": os.environ["PATH"], "PYTHONPATH": paths, "LANG": "C.UTF-8", "HOME": str(directory)}


def check(daemon: str, directory: Path, given: dict[str, str]) -> Checked:
    """Run the daemon's main function for --check-config in this process, with `given` in a minimal environment."""
    main = import_module(f"{daemon.replace('-', '_')}.__main__").main
    environment = minimal_environment(directory) | given
    with (
        patch.dict(os.environ, environment, clear=True),
        patch.object(sys, "argv", [daemon, "--check-config"]),
        chdir(directory),
        redirect_stdout(StringIO()) as stdout,
        redirect_stderr(StringIO()) as stderr,
    ):
        status = int(main())
    return Checked(status, stdout.getvalue(), stderr.getvalue())


def check_as_process(daemon: str, directory: Path, stdout: int = subprocess.PIPE) -> Checked:
    """Run --check-config as a process in a minimal environment."""
    done = subprocess.run(
        [sys.executable, "-m", daemon.replace("-", "_"), "--check-config"],
        cwd=directory,
        env=minimal_environment(directory),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    return Checked(done.returncode, done.stdout, done.stderr)


def values(daemon: str, directory: Path, given: dict[str, str]) -> dict[str, tuple[str, str]]:
    """Return value and source by variable. Checks that the daemon succeeds without a notice."""
    done = check(daemon, directory, given)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [LINE.fullmatch(line) for line in done.stdout.splitlines()]
    assert all(lines), done.stdout
    found = {line[1]: (line[2], line[3]) for line in lines if line}
    assert list(found) == [var.env for var in DAEMONS[daemon].variables().values()]
    return found


@EVERY_DAEMON
def test_empty_environment_has_all_defaults(daemon: str, tmp_path: Path) -> None:
    found = values(daemon, tmp_path, {})
    assert {source for _value, source in found.values()} == {"default"}
    for field, var in DAEMONS[daemon].variables().items():
        said = default_text(DAEMONS[daemon], field, var).replace("~", str(tmp_path))
        assert found[var.env][0] in said


@EVERY_DAEMON
def test_process_shows_the_same_as_main_function(daemon: str, tmp_path: Path) -> None:
    assert check_as_process(daemon, tmp_path) == check(daemon, tmp_path, {})


@EVERY_DAEMON
def test_shipped_environment_is_effective(daemon: str, tmp_path: Path) -> None:
    given = parse((ROOT / f"packaging/env/{daemon}.env").read_text())
    found = values(daemon, tmp_path, given)
    assert {env: value for env, (value, source) in found.items() if source == "environment"} == given


@pytest.mark.parametrize("daemon", WITH_TOKEN)
def test_token_is_shown_as_fingerprint_with_source(daemon: str, tmp_path: Path) -> None:
    (tmp_path / "api-token").write_text(TOKENS["credential"])
    (tmp_path / "token").write_text(TOKENS["file"])
    given = {
        "CREDENTIALS_DIRECTORY": str(tmp_path),
        "LLORCH_API_TOKEN_FILE": str(tmp_path / "token"),
        "LLORCH_API_TOKEN": TOKENS["environment"],
    }
    for source, variable in zip(TOKENS, tuple(given), strict=True):
        found = values(daemon, tmp_path, given)
        fingerprint = sha256(TOKENS[source].encode()).hexdigest()[:6]
        assert found["LLORCH_API_TOKEN"] == (f"token_fp6={fingerprint}", source)
        assert not any(token in str(found) for token in TOKENS.values())
        del given[variable]


@pytest.mark.parametrize("daemon", WITH_TOKEN)
def test_second_token_is_shown_as_fingerprint(daemon: str, tmp_path: Path) -> None:
    (tmp_path / "api-token").write_text(TOKENS["credential"])
    (tmp_path / "api-token-second").write_text(TOKENS["file"])
    found = values(daemon, tmp_path, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    for variable, token in (("LLORCH_API_TOKEN", "credential"), ("LLORCH_API_TOKEN_SECOND", "file")):
        fingerprint = sha256(TOKENS[token].encode()).hexdigest()[:6]
        assert found[variable] == (f"token_fp6={fingerprint}", "credential")


@pytest.mark.parametrize("daemon", WITH_TOKEN)
def test_equal_tokens_give_a_notice(daemon: str, tmp_path: Path) -> None:
    token = TOKENS["environment"]
    done = check(daemon, tmp_path, {"LLORCH_API_TOKEN": token, "LLORCH_API_TOKEN_SECOND": token})
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert "LLORCH_API_TOKEN_SECOND is the same" in line
    assert token not in done.stdout + done.stderr


def test_effective_address_is_shown_with_its_source(tmp_path: Path) -> None:
    older = values("queen-rbee", tmp_path, {"ORCHD_ADDR": "127.0.0.1:81"})
    assert older["ORCHESTRATORD_BIND_ADDR"] == ("127.0.0.1:81", "ORCHD_ADDR")
    given = {"ORCHESTRATORD_CLOUD_PROFILE": "1", "LLORCH_API_TOKEN": TOKENS["environment"], "ORCHD_POOL_MANAGERS": ""}
    cloud = values("queen-rbee", tmp_path, given)
    assert cloud["ORCHESTRATORD_BIND_ADDR"] == ("0.0.0.0:8080", "default")


def test_effective_pools_file_is_shown(tmp_path: Path) -> None:
    (tmp_path / "pools.toml").touch()
    found = values("engine-provisioner", tmp_path, {})
    assert found["ENGINE_PROVISIONER_POOLS_CONFIG"] == ("pools.toml", "default")


@EVERY_DAEMON
def test_invalid_settings_are_named_without_values(daemon: str, tmp_path: Path) -> None:
    wrong = {"RUST_LOG": "loud", "OTEL_EXPORTER_OTLP_ENDPOINT": "tempo:4317", "LLAMA_ORCH_LOG_FORMAT": "xml"}
    done = check(daemon, tmp_path, wrong)
    assert (done.returncode, done.stdout) == (78, "")
    headline, *lines = done.stderr.splitlines()
    assert headline == f"{daemon}: 3 settings cannot be used:"
    assert {line.split("=")[0].strip() for line in lines} == set(wrong)


@EVERY_DAEMON
def test_closed_stdout_ends_silently(daemon: str, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w"):
        done = check_as_process(daemon, tmp_path, writing)
    assert (done.returncode, done.stderr) == (141, "")


def test_invalid_pools_file_and_variables_are_reported(tmp_path: Path) -> None:
    (tmp_path / "pools.toml").write_text("pools = [\n")
    done = check("engine-provisioner", tmp_path, {"ENGINE_PROVISIONER_GPU_MASK": "first"})
    assert done.returncode == 78
    assert "ENGINE_PROVISIONER_GPU_MASK=first" in done.stderr
    assert "pools.toml" in done.stderr


@EVERY_DAEMON
def test_only_misspelt_variable_gives_a_notice(daemon: str, tmp_path: Path) -> None:
    suite = {var.env: "" for settings in DAEMONS.values() for var in settings.variables().values()}
    others = suite | {"ORCHD_ADMISSION_CAPACITY": "5", "ENGINE_PROVISIONER_GPU_MASK": "cpu"}
    assert check(daemon, tmp_path, others).stderr == ""
    done = check(daemon, tmp_path, others | {"POOL_MANAGERD_NODEID": "gpu-node-1"})
    assert done.returncode == 0
    [line] = done.stderr.splitlines()
    assert line.startswith(f"{daemon}: ")
    assert line.endswith("POOL_MANAGERD_NODEID (did you mean POOL_MANAGERD_NODE_ID?)")


def test_empty_home_is_unset(tmp_path: Path) -> None:
    found = values("engine-provisioner", tmp_path, {"HOME": ""})
    own = Path(pwd.getpwuid(os.getuid()).pw_dir)
    assert found["ENGINE_PROVISIONER_CACHE_DIR"][0] == str(own / ".cache/llama-orch")
