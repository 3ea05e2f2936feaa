"""pip's output is interpreted, its environment is limited, and passwords appear in neither."""

import socket
import sys
from pathlib import Path

import pytest

from engine_provisioner.failures import ProvisioningFailure, Retry
from engine_provisioner.modes import pip
from engine_provisioner.modes.package import install_with_pip

VERSION = "2026.1.1"
NOT_FOUND = """\
ERROR: Could not find a version that satisfies the requirement x==1 (from versions: none)
ERROR: No matching distribution found for x==1
"""
REFUSED = (
    "WARNING: Retrying (Retry(total=0, connect=None)) after connection broken by 'NewConnectionError("
    "'<pip._vendor.urllib3.connection.HTTPConnection object at 0x7f5809623fd0>: Failed to establish a new connection: "
    "[Errno 111] Connection refused')': /simple/x/\n"
)
PROXY = (
    "WARNING: Retrying (Retry(total=0)) after connection broken by 'ProxyError('Cannot connect to proxy.', "
    "NewConnectionError('<pip._vendor.urllib3.connection.HTTPSConnection object at 0x7f43>: Failed'))': /simple/x/\n"
)
SKIPPED = "Could not fetch URL https://bob:pw@example.org/simple/x/: 407 Client Error: Proxy - skipping\n"
ABSENT = "Could not fetch URL https://example.org/simple/x/: 404 Client Error: Not Found - skipping\n"


@pytest.mark.parametrize(
    ("output", "words", "retry"),
    [
        (
            REFUSED + NOT_FOUND,
            "cannot reach the package index: Failed to establish a new connection: [Er",
            Retry.BACKOFF,
        ),
        (PROXY + NOT_FOUND, "cannot reach the package index: Cannot connect to proxy.: Failed", Retry.BACKOFF),
        (SKIPPED + NOT_FOUND, "cannot reach the package index: 407 Client Error: Proxy.", Retry.BACKOFF),
        (ABSENT + NOT_FOUND, "No matching distribution found for x==1.", Retry.AFTER_FIX),
        (NOT_FOUND, "No matching distribution found for x==1.", Retry.AFTER_FIX),
        ("it crashed", "it crashed.", Retry.AFTER_FIX),
    ],
)
def test_unreachable_index_differs_from_missing_package(output: str, words: str, retry: Retry) -> None:
    failure = pip.failure("x==1", output)
    assert f"pip cannot install x==1: {words}" in str(failure)
    assert failure.retry is retry
    assert "0x7f" not in str(failure)


def test_passwords_in_urls_are_masked() -> None:
    output = "ERROR: cannot use proxy http://user:secret@proxy:3128 for https://bob:pw@index/simple"
    assert "secret" not in str(pip.failure("x==1", output))
    assert "pw@" not in str(pip.failure("x==1", output))


def test_pip_gets_only_variables_for_proxies_and_indexes() -> None:
    environ = {"HTTPS_PROXY": "p", "no_proxy": "n", "PIP_INDEX_URL": "i", "PIP_TARGET": "/", "LLORCH_API_TOKEN": "t"}
    assert pip.environment(environ) == {
        "HTTPS_PROXY": "p",
        "no_proxy": "n",
        "PIP_INDEX_URL": "i",
        "PIP_RETRIES": "1",
    }


async def test_proxy_is_passed_in_the_environment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "pip.py"
    script.write_text("import os, sys; sys.exit(f'ERROR: {os.environ[\"HTTPS_PROXY\"][-4:]} {sys.argv}')")
    monkeypatch.setattr(pip, "command", lambda: [sys.executable, str(script)])
    monkeypatch.setenv("HTTPS_PROXY", "http://user:secret@proxy:3128")
    with pytest.raises(ProvisioningFailure, match="3128") as caught:
        await install_with_pip(VERSION, tmp_path / "cache")
    assert "secret" not in str(caught.value)


async def test_real_pip_reports_an_unreachable_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{closed.getsockname()[1]}/simple")
        monkeypatch.setenv("PIP_RETRIES", "0")
        with pytest.raises(ProvisioningFailure, match=r"cannot reach the package index: .*refused"):
            await install_with_pip(VERSION, tmp_path / "cache")
