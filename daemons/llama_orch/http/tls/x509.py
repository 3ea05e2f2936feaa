"""When a certificate ends: all that is read of X.509 here.

Python's ssl tells it only of peers that it has verified, and of the files of CAs.
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
    """The certificates in a PEM file, in their order. Raises ValueError."""
    return [b64decode("".join(body.split()), validate=True) for body in PEM.findall(pem)]


def ends_at(der: bytes) -> datetime:
    """Until when a certificate is good: notAfter of RFC 5280, section 4.1. Raises ValueError where it is none."""
    body = _sequence(_sequence(der))
    fields = list(islice((element for element in _elements(body) if element[0] != VERSION), 4))
    # its number, how it is signed, its issuer, its validity
    if [tag for tag, _content in fields] != [INTEGER, SEQUENCE, SEQUENCE, SEQUENCE]:
        raise ValueError("this is no certificate")
    _begin, end = _elements(fields[3][1])
    return _time(*end)


def _sequence(data: bytes) -> bytes:
    """What is in the sequence that `data` begins with."""
    tag, begin, end = _bounds(data, 0)
    if tag != SEQUENCE:
        raise ValueError("this is no certificate")
    return data[begin:end]


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The elements of DER that follow each other: tag and content. Raises ValueError."""
    at = 0
    while at < len(data):
        tag, begin, at = _bounds(data, at)
        yield tag, data[begin:at]


def _bounds(data: bytes, at: int) -> tuple[int, int, int]:
    """Tag, begin and end of the content of the element at `at`."""
    if at + 2 > len(data):
        raise ValueError("this is no certificate: it is cut off")
    tag, length, begin = data[at], data[at + 1], at + 2
    if length & 0x80:  # it does not fit into seven bits: these tell how many bytes it has
        begin += length & 0x7F
        length = int.from_bytes(data[at + 2 : begin], "big")
    if begin + length > len(data):
        raise ValueError("this is no certificate: it is cut off")
    return tag, begin, begin + length


def _time(tag: int, content: bytes) -> datetime:
    """A Time of RFC 5280: in whole seconds, and in UTC. The first has a year of two digits, from 1950 on."""
    if tag == UTC_TIME:
        content = (b"19" if content[:2] >= b"50" else b"20") + content
    found = TIME.fullmatch(content) if tag in (UTC_TIME, GENERALIZED_TIME) else None
    if found is None:
        raise ValueError("this is no certificate: its time cannot be read")
    return datetime(*map(int, found.groups()), tzinfo=UTC)  # type: ignore[misc, arg-type]
