"""Warnings of expiring certificates."""

import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from llama_orch.bell import Bell
from llama_orch.http.tls.expiry import (
    DAY_S,
    NOTICE,
    ExpiringCertificate,
    Validity,
    describe_end,
    first_to_expire,
    keep_warning,
    validity,
    warnings,
)
from llama_orch.http.tls.x509 import certificates, ends_at
from llama_orch.settings.tls import CA_FILE, CERT_FILE, TlsFiles
from llama_orch.telemetry.events.service import CERTIFICATE_ENDED, CERTIFICATE_ENDING
from tests.certificates import Authority, create_ca

LIFETIMES = (1, 400, 9000, 40_000)
"""Days of validity; the last two end after 2049, when the year has four digits in a certificate."""


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return create_ca(tmp_path_factory.mktemp("ca"), "ca")


def openssl_end(path: Path) -> datetime:
    command = ["openssl", "x509", "-noout", "-enddate", "-in", str(path)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    return datetime.fromtimestamp(ssl.cert_time_to_seconds(text.removeprefix("notAfter=")), UTC)


def of_file(path: Path | None) -> bytes:
    assert path
    [der] = certificates(path.read_text())
    return der


@pytest.mark.parametrize("days", LIFETIMES)
def test_expiry_matches_openssl(days: int, ca: Authority, tmp_path: Path) -> None:
    own = replace(ca, directory=ca.directory).issue(f"for-{days}-days", days=days)
    other = create_ca(tmp_path, "authority", days=days)
    for path in (own.cert, other.certificate):
        assert path
        assert ends_at(of_file(path)) == openssl_end(path)


def test_expiry_of_system_cas_matches_ssl() -> None:
    context = ssl.create_default_context()
    for der, known in zip(context.get_ca_certs(binary_form=True), context.get_ca_certs(), strict=True):
        assert ends_at(der).timestamp() == ssl.cert_time_to_seconds(str(known["notAfter"]))


def test_text_and_other_pem_headers_are_accepted(ca: Authority, tmp_path: Path) -> None:
    trusted = tmp_path / "trusted.pem"
    command = ["openssl", "x509", "-in", str(ca.certificate), "-addtrust", "serverAuth", "-trustout", "-text"]
    trusted.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    assert "BEGIN TRUSTED CERTIFICATE" in trusted.read_text()
    assert ends_at(of_file(trusted)) == ends_at(of_file(ca.certificate))


ELEMENTS = st.recursive(
    st.binary(max_size=12),
    lambda inner: st.builds(
        lambda tag, content: bytes([tag, len(content) & 0x7F]) + content,
        st.sampled_from([0x02, 0x17, 0x18, 0x30, 0xA0]),
        st.lists(inner, max_size=5).map(b"".join),
    ),
)


@given(ELEMENTS)
def test_non_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        ends_at(data)


def test_damaged_certificate_raises_only_value_error(ca: Authority) -> None:
    whole = of_file(ca.certificate)
    for length in range(0, len(whole), 7):
        with pytest.raises(ValueError, match="not a certificate"):
            ends_at(whole[:length])
    for at in range(len(whole)):
        with suppress(ValueError):
            ends_at(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])


TIMES = st.datetimes(datetime(1971, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))
SPANS = st.timedeltas(timedelta(0), timedelta(days=10_000))


@given(TIMES, SPANS)
def test_validity_boundaries(ends, span):
    assert validity(ends, ends + span) is (Validity.ENDED if span else Validity.ENDING)
    expected = Validity.ENDING if span <= NOTICE else Validity.GOOD
    assert validity(ends, ends - span) is expected


@given(TIMES, SPANS)
def test_description_has_date_and_days(ends, span):
    left, gone = describe_end(ends, ends - span), describe_end(ends, ends + span)
    days = "less than a day" if span < timedelta(days=1) else f"{span.days} day{'s' * (span.days != 1)}"
    assert left == f"ends on {ends:%Y-%m-%d %H:%M} UTC, in {days}"
    if span:
        assert gone == f"ended on {ends:%Y-%m-%d %H:%M} UTC, {days} ago"


@given(st.lists(TIMES, max_size=4), TIMES)
def test_only_expiring_files_are_reported(ends, now):
    found = [ExpiringCertificate(CERT_FILE, Path(f"/{number}"), 1, end) for number, end in enumerate(ends)]
    told_of = {str(fields["path"]): event for event, fields in warnings(found, now)}
    assert told_of == {
        f"/{number}": CERTIFICATE_ENDED if now > end else CERTIFICATE_ENDING
        for number, end in enumerate(ends)
        if end - now <= NOTICE
    }


def test_first_expiring_certificate_of_file_is_used(ca: Authority, tmp_path: Path) -> None:
    short = ca.issue("short", days=3)
    assert short.cert
    chain = tmp_path / "chain.pem"
    chain.write_text(ca.certificate.read_text() + short.cert.read_text())
    assert first_to_expire(TlsFiles(cert=chain, ca=ca.certificate)) == [
        ExpiringCertificate(CERT_FILE, chain, 2, openssl_end(short.cert)),
        ExpiringCertificate(CA_FILE, ca.certificate, 1, openssl_end(ca.certificate)),
    ]


def test_missing_or_other_files_are_skipped(tmp_path: Path) -> None:
    odd = tmp_path / "odd.pem"
    odd.write_bytes(b"-----BEGIN CERTIFICATE-----\n\xff\xff\n-----END CERTIFICATE-----\n")
    assert first_to_expire(TlsFiles()) == first_to_expire(TlsFiles(cert=tmp_path / "none", ca=odd)) == []


@contextmanager
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[list[tuple[str, str]]]:
    """Collect (level, text) of the log records in the block."""
    found: list[tuple[str, str]] = []
    caplog.clear()
    yield found
    found += [(record.levelname, record.getMessage()) for record in caplog.records]


async def test_daemon_warns_at_start_and_daily(
    ca: Authority, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    files = replace(ca.issue("daemon", days=31), ca=None)
    begun = datetime.fromtimestamp(time.time(), UTC)
    with logged(caplog) as lines, trio.move_on_after(33.5 * DAY_S):
        await keep_warning(
            lambda: first_to_expire(files), Bell(), lambda: begun + timedelta(seconds=trio.current_time())
        )
    assert [level for level, _text in lines] == ["WARNING"] * 30 + ["ERROR"] * 3
    assert lines[0][1].startswith(f"certificate 1 of {files.cert} ({CERT_FILE}) ends on ")
    assert lines[-1][1].endswith("2 days ago")


async def test_renewed_certificate_is_judged_at_once(
    ca: Authority, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    loaded, renewed = [first_to_expire(replace(ca.issue("old", days=5), ca=None))], Bell()
    with logged(caplog) as lines:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_warning, lambda: loaded[-1], renewed)
            await trio.sleep(1)
            loaded.append(first_to_expire(replace(ca.issue("new", days=3), ca=None)))
            renewed.ring()
            await trio.sleep(1)
            loaded.append([])
            await trio.sleep(3 * DAY_S)
            nursery.cancel_scope.cancel()
    assert [("old.pem" in text, "new.pem" in text) for _level, text in lines] == [(True, False), (False, True)]
