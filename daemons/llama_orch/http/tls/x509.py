"""Read the expiry date of an X.509 certificate.

Python's ssl gives it only for verified peers and for CA files.
"""

import re
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice

PEM = re.compile(r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.*?)-----END ", re.DOTALL)
VERSION, INTEGER, SEQUENCE, UTC_TIME, GENERALIZED_TIME = 0xA0, 0x02, 0x30, 0x17, 0x18
TIME = re.compile(rb"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")


def certificates(pem: str) -> list[bytes]:
    """Return the certificates of a PEM file as DER, in order. Raises ValueError."""
    return [b64decode("".join(body.split()), validate=True) for body in PEM.findall(pem)]


def ends_at(der: bytes) -> datetime:
    """Return notAfter of a certificate (RFC 5280, section 4.1). Raises ValueError if it is not a certificate."""
    body = _sequence(_sequence(der))
    fields = list(islice((element for element in _elements(body) if element[0] != VERSION), 4))
    # serialNumber, signature, issuer, validity
    if [tag for tag, _content in fields] != [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE]:
        raise ValueError("not a certificate")
    _begin, end = _elements(fields[3][1])
    return _time(*end)


def _sequence(data: bytes) -> bytes:
    """Return the content of the SEQUENCE at the start of `data`."""
    tag, begin, end = _bounds(data, 0)
    if tag != SEQUENCE:
        raise ValueError("not a certificate")
    return data[begin:end]


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of consecutive DER elements. Raises ValueError."""
    at = 0
    while at < len(data):
        tag, begin, at = _bounds(data, at)
        yield tag, data[begin:at]


def _bounds(data: bytes, at: int) -> tuple[int, int, int]:
    """Return the tag, and the start and end of the content, of the element at `at`."""
    if at + 2 > len(data):
        raise ValueError("not a certificate: truncated data")
    tag, length, begin = data[at], data[at + 1], at + 2
    if length & 0x80:  # long form: the low bits are the number of length bytes
        begin += length & 0x7F
        length = int.from_bytes(data[at + 2 : begin], "big")
    if begin + length > len(data):
        raise ValueError("not a certificate: truncated data")
    return tag, begin, begin + length


def _time(tag: int, content: bytes) -> datetime:
    """Parse a Time of RFC 5280, in whole seconds and UTC. UTCTime has a two-digit year, 1950 to 2049."""
    if tag == UTC_TIME:
        content = (b"19" if content[:2] >= b"50" else b"20") + content
    found = TIME.fullmatch(content) if tag in (UTC_TIME, GENERALIZED_TIME) else None
    if found is None:
        raise ValueError("not a certificate: invalid time")
    return datetime(*map(int, found.groups()), tzinfo=UTC)  # type: ignore[misc, arg-type]
