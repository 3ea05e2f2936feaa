"""Mutual TLS between the daemons as processes, in both profiles, and with orchctl."""

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from llama_orch.settings.tls import CA_FILE, CERT_FILE, KEY_FILE, TlsFiles
from tests.certificates import create_ca
from tests.integration.home import Home, environment, free_port, stop_if_running
from tests.unit.llama_orch.spool.samples import publish

TOKEN = "0123456789abcdef-of-the-fleet"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return create_ca(tmp_path_factory.mktemp("ca"), "ca").issue("machine")


def variables(files: TlsFiles) -> dict[str, str]:
    named = {CERT_FILE: files.cert, KEY_FILE: files.key, CA_FILE: files.ca}
    return {name: str(path) for name, path in named.items() if path}


@dataclass
class TlsHome(Home):
    """Queen and pool-managerd, over TLS."""

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.queen_port}"

    def pools(self) -> list[dict[str, Any]]:
        """Return the pools as orchctl lists them, or an empty list if it fails."""
        done = self.orchctl("pools", "--json")
        return json.loads(done.stdout)["pools"] if done.returncode == 0 else []


@contextmanager
def running(directory: Path, **more: str) -> Iterator[TlsHome]:
    """Run both daemons, with a handoff file in a directory that only pool-managerd watches."""
    spool = directory / "engines"
    spool.mkdir()
    publish(spool)
    queen, manager = free_port(), free_port()
    environ = environment(directory) | {
        "ORCHESTRATORD_BIND_ADDR": f"127.0.0.1:{queen}",
        "POOL_MANAGERD_BIND_ADDR": f"127.0.0.1:{manager}",
        "ORCHD_POOL_MANAGERS": f"https://127.0.0.1:{manager}",
        "POOL_MANAGERD_RUNTIME_DIR": str(spool),
        "LLORCH_API_TOKEN": TOKEN,
        **more,
    }
    home = TlsHome(directory, environ, queen, manager)
    with ExitStack() as cleanup:
        for name in ("queen-rbee", "pool-managerd"):
            home.start(name)
            cleanup.callback(stop_if_running, home, name)
        yield home


def test_queen_reaches_pool_managerd_over_tls(files: TlsFiles, tmp_path: Path) -> None:
    with running(tmp_path, **variables(files)) as home:
        [pool] = home.until(home.pools)
        assert pool["pool_id"]
        assert "served over TLS, and requires a client certificate" in home.logs()


def test_node_registers_and_is_reached_over_tls(files: TlsFiles, tmp_path: Path) -> None:
    queen = free_port()
    cloud = {
        "ORCHESTRATORD_CLOUD_PROFILE": "true",
        "ORCHESTRATORD_BIND_ADDR": f"127.0.0.1:{queen}",
        "ORCHD_POOL_MANAGERS": "",
        "ORCHESTRATORD_URL": f"https://127.0.0.1:{queen}",
        "POOL_MANAGERD_NODE_ID": "gpu-node-1",
        "POOL_MANAGERD_HEARTBEAT_INTERVAL_SECS": "1",
    }
    with running(tmp_path, **variables(files), **cloud) as home:
        home.queen_port = queen
        [pool] = home.until(home.pools)
        assert pool["node_id"] == "gpu-node-1"
        where = f"https://127.0.0.1:{home.manager_port}"
        assert where in home.orchctl("nodes", "--json").stdout
        by_machine_id = {name: value for name, value in home.environ.items() if not name.startswith("POOL_MANAGERD_")}
        checked = replace(home, environ=by_machine_id).orchctl("check").stdout
        assert f"ok       this node: pool-managerd at {where} is ready, CLOUD_PROFILE\n" in checked
        assert f"ok       this node: the queen at {home.url} answers it and accepts its token\n" in checked
        assert f"ok       this node: registered with the queen as gpu-node-1: online, reachable at {where}\n" in checked


def orchctl(home: TlsHome, files: TlsFiles) -> subprocess.CompletedProcess[str]:
    without = {name: value for name, value in home.environ.items() if not name.startswith("LLORCH_TLS")}
    return replace(home, environ=without | variables(files)).orchctl("pools")


def test_orchctl_needs_accepted_certificate_and_reports_why(files: TlsFiles, tmp_path: Path) -> None:
    with running(tmp_path, **variables(files)) as home:
        home.until(home.pools)
        assert orchctl(home, files).returncode == 0
        unknown = orchctl(home, TlsFiles())
        assert unknown.returncode == 69
        assert "its certificate was not accepted" in unknown.stderr
        assert orchctl(home, replace(files, cert=None, key=None)).returncode == 69
        home.until(lambda: "the client sent no certificate" in home.logs())
        broken = orchctl(home, replace(files, ca=tmp_path / "none"))
        assert broken.returncode == 78
        assert f"{CA_FILE}={tmp_path / 'none'}" in broken.stderr


def test_expiring_certificates_are_logged_and_found_by_check(tmp_path: Path) -> None:
    ca = create_ca(tmp_path, "ca")
    expiring = ca.issue("expiring", days=5)
    with running(tmp_path, **variables(expiring)) as home:
        home.until(home.pools)
        assert home.logs().count(f"certificate 1 of {expiring.cert} (LLORCH_TLS_CERT_FILE) ends on ") == 2
        found = json.loads(home.orchctl("check", "--json").stdout)["findings"]
        (queen, manager, own) = (each for each in found if each["subject"] == "certificate" and each["level"] != "ok")
        assert {each["level"] for each in (queen, manager, own)} == {"warning"}
        assert f"queen-rbee at {home.url} ends on " in queen["text"]
        assert f"pool-managerd at https://127.0.0.1:{home.manager_port} ends on " in manager["text"]
        assert f"{expiring.cert} ({CERT_FILE}) ends on " in own["text"]


def test_renewed_certificates_are_used_after_sighup(tmp_path: Path) -> None:
    first, second = create_ca(tmp_path, "first"), create_ca(tmp_path, "second")
    used = TlsFiles(tmp_path / "tls.pem", tmp_path / "tls.key", tmp_path / "tls-ca.pem")
    renew(used, first.issue("one"))
    with running(tmp_path, **variables(used)) as home:
        home.until(home.pools)
        renew(used, second.issue("two"))
        for process in home.processes.values():
            process.send_signal(signal.SIGHUP)
        home.until(lambda: home.logs().count('"configuration_reloaded"') == 2)
        assert f"{used.cert} ({CERT_FILE}), which ends on " in home.logs()
        assert orchctl(home, used).returncode == 0
        assert orchctl(home, first.issue("former")).returncode == 69
        gpus = json.loads(home.orchctl("gpus", "--json").stdout)
        assert "certificate" not in str(gpus["problems"]), "the queen asks pool-managerd over a new connection"
        assert "NVML" in str(gpus["problems"])


def renew(used: TlsFiles, issued: TlsFiles) -> None:
    for target, source in ((used.cert, issued.cert), (used.key, issued.key), (used.ca, issued.ca)):
        assert target
        assert source
        shutil.copy(source, target)
