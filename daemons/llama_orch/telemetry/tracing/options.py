"""Where spans are sent and which ones: the values of OpenTelemetry's variables, parsed."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

Protocol = Literal["grpc", "http/protobuf"]
SamplerName = Literal[
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
]
HTTP_PORT = 4318
"""The port that OpenTelemetry assigns to OTLP over HTTP; 4317 is gRPC's."""
PAIR_LIMIT = 64
LENGTH_LIMIT = 8192
OWN_HEADERS = (
    *("host", "te", "connection", "upgrade", "user-agent", "grpc-timeout", "grpc-encoding", "transfer-encoding"),
    *("content-length", "content-type", "content-encoding"),
)
"""Headers that the exporter sets itself, or that belong to the connection."""


@dataclass(frozen=True)
class TraceOptions:
    """`endpoint` is a URL without a trailing slash. `headers` may hold secrets. `ratio` is the part of the traces that
    a ratio sampler keeps, 0 to 1."""

    endpoint: str
    service_name: str
    protocol: Protocol = "grpc"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout_s: float = 10.0
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)
    sampler: SamplerName = "parentbased_always_on"
    ratio: float = 1.0


def protocol_of(endpoint: str) -> Protocol:
    """Return the protocol that the port stands for: HTTP for 4318, gRPC for every other."""
    return "http/protobuf" if urlsplit(endpoint).port == HTTP_PORT else "grpc"


def parse_pairs(text: str) -> Iterator[tuple[str, str]]:
    """Yield the pairs of `name=value,name=value`. Values are percent-decoded. Raises ValueError without any value."""
    if len(text) > LENGTH_LIMIT:
        raise ValueError(f"is longer than {LENGTH_LIMIT} characters")
    pairs = [pair for pair in text.split(",") if pair.strip()]
    if len(pairs) > PAIR_LIMIT:
        raise ValueError(f"has more than {PAIR_LIMIT} pairs")
    for number, pair in enumerate(pairs, 1):
        name, equals, value = pair.partition("=")
        name, value = unquote(name.strip()), unquote(value.strip())
        if not equals or not name:
            raise ValueError(f"is not NAME=VALUE[,NAME=VALUE...] (pair {number} has no name or no =)")
        if re.search(r"[\x00-\x1f\x7f]", name + value):
            raise ValueError(f"has a control character in pair {number}")
        yield name, value


def parse_headers(text: str) -> dict[str, str]:
    """Return the headers, with names in lower case. Raises ValueError, which never quotes a value."""
    headers = {name.lower(): value for name, value in parse_pairs(text)}
    for number, (name, value) in enumerate(headers.items(), 1):
        if not re.fullmatch(r"[a-z0-9!#$%&'*+.^_`|~-]+", name):
            raise ValueError(f"has an invalid header name in pair {number}")
        if not value.isascii():
            raise ValueError(f"has a value that is not ASCII in pair {number}")
        if name in OWN_HEADERS:
            raise ValueError(f"sets {name}, which the exporter sets itself")
    return headers
