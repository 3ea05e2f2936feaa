"""A reload of the TLS files of a running server and client."""

import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from prometheus_client import CollectorRegistry

from llama_orch.http.server.access import Access
from llama_orch.http.server.app import create_app
from llama_orch.http.server.gate import Gate
from llama_orch.http.server.serving import serve
from llama_orch.http.tls.current import CurrentTls
from llama_orch.http.tls.secured import TlsStream
from llama_orch.http.tls.tls import Tls
from llama_orch.service.reload import Outcome
from llama_orch.settings.tls import CA_FILE, CERT_FILE, KEY_FILE, TlsFiles
from tests.certificates import Authority, create_ca

LIMIT_S = 20.0
REQUEST = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return create_ca(tmp_path_factory.mktemp("ca"), "ca")


@pytest.fixture
def files(ca: Authority, tmp_path: Path) -> TlsFiles:
    """The files that a daemon has loaded, without a CA."""
    return replace(put(ca.issue("first"), tmp_path), ca=None)


def put(issued: TlsFiles, directory: Path) -> TlsFiles:
    """Copy a certificate and its key to the paths that the daemon uses, and return these."""
    assert issued.cert
    assert issued.key
    shutil.copy(issued.cert, directory / "tls.pem")
    shutil.copy(issued.key, directory / "tls.key")
    return TlsFiles(directory / "tls.pem", directory / "tls.key", issued.ca)


@asynccontextmanager
async def serving(tls: CurrentTls) -> AsyncIterator[tuple[str, int]]:
    """Serve /health with `tls`; yield the address."""
    stop, gate = trio.Event(), Gate(create_app("test", list, CollectorRegistry()), Access())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with trio.open_nursery() as nursery:

            async def run(task_status: trio.TaskStatus[None]) -> None:
                await serve(gate, [listener.dup()], shutdown=stop, drain_s=LIMIT_S, tls=tls, task_status=task_status)

            await nursery.start(run)
            yield listener.getsockname()
            stop.set()


@asynccontextmanager
async def connected(address: tuple[str, int], ca: Authority) -> AsyncIterator[TlsStream]:
    context = Tls.of(TlsFiles(ca=ca.certificate)).client
    assert context
    stream = TlsStream(await trio.open_tcp_stream(*address), context, "127.0.0.1")
    with trio.fail_after(LIMIT_S):
        try:
            await stream.handshake()
            yield stream
        finally:
            await stream.aclose()


async def status(stream: TlsStream) -> bytes:
    await stream.send_all(REQUEST)
    answer = b""
    while b'{"status":"ok"}' not in answer:
        answer += await stream.receive_some()
    return answer[:12]


def der(path: Path | None) -> bytes:
    assert path
    return ssl.PEM_cert_to_DER_cert(path.read_text())


async def test_new_connections_get_new_certificate_and_old_go_on(
    ca: Authority, files: TlsFiles, tmp_path: Path
) -> None:
    tls, first = CurrentTls(files), der(files.cert)
    async with serving(tls) as address, connected(address, ca) as existing:
        assert await status(existing) == b"HTTP/1.1 200"
        put(ca.issue("second"), tmp_path)
        outcome = await tls.reload()
        assert outcome.refused == ()
        assert [CERT_FILE in outcome.applied[0], "ends on" in outcome.applied[0]] == [True, True]
        assert KEY_FILE in outcome.applied[1]
        async with connected(address, ca) as later:
            assert later.peer_certificate == der(files.cert) != first
            assert await status(later) == b"HTTP/1.1 200"
        assert existing.peer_certificate == first
        assert await status(existing) == b"HTTP/1.1 200"


@pytest.mark.parametrize("fault", ["mismatched", "broken", "missing"])
async def test_unusable_file_is_named_and_former_stays(
    fault: str, ca: Authority, files: TlsFiles, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tls = CurrentTls(files)
    former, expected = (tls.server, tls.client, tls.expiring), "is not the key of the first certificate"
    if fault == "mismatched":
        shutil.copy(os.fspath(ca.issue("another").key or ""), tmp_path / "tls.key")
    elif fault == "broken":
        (tmp_path / "tls.pem").write_text("-----BEGIN CERTIFICATE-----\nMIIB\n")
        expected = "holds no usable certificate"
    else:
        (tmp_path / "tls.pem").unlink()
        expected = "cannot be read"
    outcome = await tls.reload()
    assert expected in outcome.refused[0]
    assert str(tmp_path) in outcome.refused[0]
    assert f"the former one stays: {outcome.refused[0]}" in caplog.text
    assert (tls.server, tls.client, tls.expiring) == former


async def test_unchanged_files_change_nothing(files: TlsFiles) -> None:
    tls = CurrentTls(files)
    former = tls.server, tls.client
    assert await tls.reload() == Outcome()
    assert (tls.server, tls.client) == former
    assert not await tls.renewed.wait(0)


async def test_expiry_is_read_again(ca: Authority, files: TlsFiles, tmp_path: Path) -> None:
    tls = CurrentTls(files)
    [before] = tls.expiring
    put(ca.issue("shorter", days=3), tmp_path)
    await tls.reload()
    [after] = tls.expiring
    assert after.ends < before.ends
    assert await tls.renewed.wait(0)


async def test_new_ca_replaces_the_old_one(ca: Authority, files: TlsFiles, tmp_path: Path) -> None:
    shutil.copy(ca.certificate, tmp_path / "ca.pem")
    tls = CurrentTls(replace(files, ca=tmp_path / "ca.pem"))
    other = create_ca(tmp_path, "other")
    shutil.copy(other.certificate, tmp_path / "ca.pem")
    outcome = await tls.reload()
    assert [CA_FILE in words for words in outcome.applied] == [True]
    assert tls.server
    assert tls.server.get_ca_certs(binary_form=True) == [der(other.certificate)]


async def test_key_from_credential_is_said_to_need_restart(ca: Authority, files: TlsFiles, tmp_path: Path) -> None:
    """The certificate is a file, which the operator has replaced, and its key is a copy of the start."""
    tls = CurrentTls(files, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    shutil.copy(os.fspath(ca.issue("second").cert or ""), tmp_path / "tls.pem")
    outcome = await tls.reload()
    assert "systemd copies credentials when it starts the unit" in outcome.refused[0]
