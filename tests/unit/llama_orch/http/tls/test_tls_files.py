"""TLS contexts from files, and problems of these files."""

import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from llama_orch.http.tls.tls import CLEAR, Tls
from llama_orch.settings import ConfigurationError
from llama_orch.settings.tls import CA_FILE, CERT_FILE, KEY_FILE, TlsFiles
from tests.certificates import Authority, create_ca
from tests.unit.test_check_config import WITH_TOKEN, check


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return create_ca(tmp_path_factory.mktemp("ca"), "ca")


@pytest.fixture(scope="module")
def good(ca: Authority) -> TlsFiles:
    return ca.issue("daemon")


def environ(files: TlsFiles) -> dict[str, str]:
    named = {CERT_FILE: files.cert, KEY_FILE: files.key, CA_FILE: files.ca}
    return {name: str(path) for name, path in named.items() if path}


def test_without_files_there_is_no_tls() -> None:
    assert Tls.of(TlsFiles()) == CLEAR == Tls(None, None)


def test_certificate_enables_tls_and_ca_makes_it_mutual(good: TlsFiles) -> None:
    alone = Tls.of(replace(good, ca=None))
    assert alone.server
    assert alone.server.verify_mode is ssl.CERT_NONE
    assert alone.words == "TLS"
    both = Tls.of(good)
    assert both.server
    assert both.server.verify_mode is ssl.CERT_REQUIRED
    assert both.words == "TLS, and requires a client certificate"


def test_ca_alone_is_for_client_only(good: TlsFiles) -> None:
    tls = Tls.of(TlsFiles(ca=good.ca))
    assert (tls.server, tls.words) == (None, None)
    assert tls.client
    assert len(tls.client.get_ca_certs()) == 1


def test_files_are_found_by_their_variables(good: TlsFiles) -> None:
    assert TlsFiles.named(environ(good)) == good
    assert TlsFiles.named({CERT_FILE: "", "PATH": "/bin"}) == TlsFiles()


def refused(files: TlsFiles) -> dict[str, str]:
    with pytest.raises(ConfigurationError) as caught:
        Tls.of(files)
    assert all(problem.hint for problem in caught.value.problems)
    return {problem.variable: str(problem) for problem in caught.value.problems}


@pytest.mark.parametrize(("name", "variable"), [("cert", CERT_FILE), ("key", KEY_FILE), ("ca", CA_FILE)])
def test_unreadable_file_is_named_with_reason(name: str, variable: str, good: TlsFiles, tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory")):
        found = refused(replace(good, **{name: path}))
        assert set(found) == {variable}
        assert words in found[variable]
        assert f"={path}:" in found[variable]


@pytest.mark.parametrize(("name", "variable"), [("cert", CERT_FILE), ("key", KEY_FILE), ("ca", CA_FILE)])
@pytest.mark.parametrize("content", [b"", b"no certificate", bytes(range(256))])
def test_file_without_pem_is_named(name: str, variable: str, content: bytes, good: TlsFiles, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    found = refused(replace(good, **{name: tmp_path / "file"}))
    assert set(found) == {variable}
    assert "holds no usable" in found[variable]


def test_all_files_are_checked(tmp_path: Path) -> None:
    none = tmp_path / "none"
    assert set(refused(TlsFiles(none, none, none))) == {CERT_FILE, KEY_FILE, CA_FILE}


def test_mismatched_key_is_reported(good: TlsFiles, ca: Authority) -> None:
    other = ca.issue("another")
    assert f"is not the key of the first certificate in {good.cert}" in refused(replace(good, key=other.key))[KEY_FILE]


def test_encrypted_key_is_refused_without_prompt(ca: Authority) -> None:
    found = refused(ca.issue("locked", password="open sesame"))
    assert "without a password" in found[KEY_FILE]


def test_swapped_files_are_both_named(good: TlsFiles) -> None:
    assert set(refused(replace(good, cert=good.key, key=good.cert))) == {CERT_FILE, KEY_FILE}


@pytest.mark.parametrize("daemon", WITH_TOKEN)
def test_files_are_checked_despite_invalid_variables(daemon: str, tmp_path: Path) -> None:
    done = check(daemon, tmp_path, {"RUST_LOG": "loud", CERT_FILE: str(tmp_path / "none")})
    headline, *lines = done.stderr.splitlines()
    assert headline == f"{daemon}: 3 settings cannot be used:"
    assert [line.replace(":", "=").split("=")[0].strip() for line in lines] == ["RUST_LOG", KEY_FILE, CERT_FILE]


@pytest.mark.parametrize(("name", "variable"), [("cert", CERT_FILE), ("key", KEY_FILE)])
def test_certificate_without_key_is_refused(name: str, variable: str, good: TlsFiles) -> None:
    assert set(refused(replace(good, **{name: None}))) == {variable}


@pytest.mark.parametrize("daemon", WITH_TOKEN)
def test_check_config_checks_files(daemon: str, good: TlsFiles, ca: Authority, tmp_path: Path) -> None:
    done = check(daemon, tmp_path, environ(good))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{CERT_FILE}={good.cert}  # environment" in done.stdout
    for wrong, variable in (
        (replace(good, key=None), KEY_FILE),
        (replace(good, key=ca.issue("third").key), KEY_FILE),
        (replace(good, ca=tmp_path / "none"), CA_FILE),
    ):
        done = check(daemon, tmp_path, environ(wrong))
        assert (done.returncode, done.stdout) == (78, "")
        assert [line.split("=")[0].split(":")[0].strip() for line in done.stderr.splitlines()[1:]] == [variable]
