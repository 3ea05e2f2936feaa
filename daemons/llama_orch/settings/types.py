"""The types of settings, parsed from the text of environment variables.

Stricter than pydantic's own conversions: only the values in the reference are valid, so `1e3` is not a port and `yes`
is not a Boolean.
"""

import hashlib
import os
import pwd
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, SecretStr

from llama_orch.addresses import Host, base_url, http_url, parse_address
from llama_orch.contracts.wake import MACS_MAX, mac_address
from llama_orch.settings.declaration import Allowed
from llama_orch.telemetry.levels import Levels, parse_levels

SIZE_UNITS = ("", "K", "M", "G", "T")
SIZE_LIMIT = 1 << 53
HOST_NAME = r"[a-z0-9_]([a-z0-9_.-]{0,252}[a-z0-9_])?"


def _flag(value: Any) -> Any:
    if isinstance(value, str):
        known = {"true": True, "1": True, "false": False, "0": False}
        if value.lower() not in known:
            raise ValueError("is not a Boolean")
        return known[value.lower()]
    return value


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        if not re.fullmatch(r"[+-]?[0-9]{1,18}", value):
            raise ValueError("is not a whole number")
        return int(value)
    return value


def _levels(value: Any) -> Any:
    return parse_levels(value) if isinstance(value, str) else value


class Secret(SecretStr):
    """A token whose text representation is its fingerprint."""

    @property
    def fingerprint(self) -> str:
        """The first six hex digits of the SHA-256 of the token, logged as `token_fp6`."""
        return hashlib.sha256(self.get_secret_value().encode()).hexdigest()[:6]

    def __str__(self) -> str:
        return f"token_fp6={self.fingerprint}"

    __repr__ = __str__


def _token(value: Any) -> Any:
    if isinstance(value, str):
        if not re.fullmatch(r"[\x21-\x7e]{16,512}", value):
            raise ValueError("is not a valid token")
        return Secret(value)
    return value


def _password(value: Any) -> Any:
    if isinstance(value, str):
        if not re.fullmatch(r"[\x21-\x7e]{1,4096}", value):
            raise ValueError("is not a valid secret")
        return Secret(value)
    return value


def _loose_flag(value: Any) -> Any:
    if isinstance(value, str):
        known = {
            "1": True,
            "on": True,
            "yes": True,
            "true": True,
            "0": False,
            "off": False,
            "no": False,
            "false": False,
        }
        if value.lower() not in known:
            raise ValueError("is not a Boolean")
        return known[value.lower()]
    return value


def _byte_rate(value: Any) -> Any:
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,9})([KMG]?)", value)
        if match is None:
            raise ValueError("is not a number of bytes")
        value = int(match[1]) << {"": 0, "K": 10, "M": 20, "G": 30}[match[2]]
    return value


@dataclass(frozen=True)
class GpuMask:
    """The indices of the GPUs that may be used. An empty mask, written as `cpu`, makes engines run on the CPU."""

    indices: tuple[int, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.indices)) or "cpu"

    @property
    def cpu(self) -> bool:
        return not self.indices


@dataclass(frozen=True)
class ByteSize:
    """A number of bytes, written with K, M, G or T for powers of 1024."""

    count: int

    def __str__(self) -> str:
        exponent = max(power for power in range(len(SIZE_UNITS)) if self.count % 1024**power == 0)
        return f"{self.count // 1024**exponent}{SIZE_UNITS[exponent]}"


def _size(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    match = re.fullmatch(r"([0-9]{1,15})([KMGT]?)", value.upper())
    if not match:
        raise ValueError("is not a size")
    count = int(match[1]) * 1024 ** SIZE_UNITS.index(match[2])
    if not 0 < count <= SIZE_LIMIT:
        raise ValueError("is out of range (1 to 8192T)")
    return ByteSize(count)


def _mask(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.strip().lower() == "cpu":
        return GpuMask(())
    parts = [part.strip() for part in value.split(",")]
    if not all(re.fullmatch(r"[0-9]{1,3}", part) for part in parts):
        raise ValueError("is not a list of GPU indices")
    indices = tuple(int(part) for part in parts)
    if len(set(indices)) != len(indices):
        raise ValueError("names a GPU twice")
    return GpuMask(indices)


def _urls(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return tuple(base_url(part.strip()) for part in value.split(",") if part.strip())


def _macs(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    macs = tuple(part.strip() for part in value.split(",") if part.strip())
    if len(macs) > MACS_MAX:
        raise ValueError(f"has {len(macs)} addresses (at most {MACS_MAX} are allowed)")
    return tuple(map(_mac, macs))


def _mac(value: str) -> str:
    try:
        return mac_address(value)
    except ValueError as error:
        raise ValueError(f"contains {value!r}, which {error}") from error


def _host_names(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    names = tuple(part.strip().lower().rstrip(".") for part in value.split(",") if part.strip())
    if bad := next((name for name in names if not re.fullmatch(rf"(\*\.)?{HOST_NAME}", name)), None):
        raise ValueError(f"contains {bad!r}, which is not a host name")
    return names


def _origins(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    origins = tuple(part.strip().lower().rstrip("/") for part in value.split(",") if part.strip())
    pattern = rf"\*|[a-z][a-z0-9+.-]*://(\*|({HOST_NAME}|\[[0-9a-f:.]+\])(:[0-9]{{1,5}})?)"
    if bad := next((origin for origin in origins if not re.fullmatch(pattern, origin)), None):
        raise ValueError(f"contains {bad!r}, which is not an origin")
    return origins


def _paths(value: Any) -> Any:
    """Parse a list of absolute paths; ~ is the home directory. Defaults below an unknown home directory are dropped."""
    if not isinstance(value, str):
        return tuple(path for path in value if path.is_absolute()) + tuple(_expanded_defaults(value))
    paths = tuple(_expanded(Path(part.strip())) for part in value.split(",") if part.strip())
    if bad := next((path for path in paths if not path.is_absolute()), None):
        raise ValueError(f"contains {str(bad)!r}, which is not an absolute path")
    return paths


def _expanded_defaults(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_absolute():
            with suppress(ValueError):
                yield _expanded(path)


def _expanded(value: Path) -> Path:
    try:
        if value.parts[:1] == ("~",) and os.environ.get("HOME") == "":  # expanduser would return the root directory
            return Path(pwd.getpwuid(os.getuid()).pw_dir, *value.parts[1:])
        return value.expanduser()
    except (RuntimeError, KeyError) as error:
        raise ValueError("contains a ~ whose home directory is unknown") from error


Flag = Annotated[bool, BeforeValidator(_flag), Allowed("true, false, 1 or 0")]
Integer = Annotated[int, BeforeValidator(_whole)]
Address = Annotated[Host, BeforeValidator(parse_address), Allowed("host:port or [ipv6]:port")]
LogLevels = Annotated[
    Levels,
    BeforeValidator(_levels),
    Allowed("trace, debug, info, warn, error or off, and TARGET=LEVEL after commas"),
]
Token = Annotated[Secret, BeforeValidator(_token), Allowed("16 to 512 printable ASCII characters without spaces")]
Password = Annotated[Secret, BeforeValidator(_password), Allowed("1 to 4096 printable ASCII characters without spaces")]
"""A secret that another service issues."""
LooseFlag = Annotated[bool, BeforeValidator(_loose_flag), Allowed("1, ON, YES or TRUE; 0, OFF, NO or FALSE")]
"""A Boolean as other tools write it."""
ByteRate = Annotated[int, BeforeValidator(_byte_rate)]
Url = Annotated[str, AfterValidator(http_url), Allowed("an http:// or https:// URL")]
BaseUrl = Annotated[str, AfterValidator(base_url), Allowed("an http:// or https:// URL")]
UrlList = Annotated[tuple[str, ...], BeforeValidator(_urls), Allowed("http:// or https:// URLs, separated by commas")]
MacList = Annotated[
    tuple[str, ...], BeforeValidator(_macs), Allowed("hardware addresses as in 52:54:00:12:34:56, separated by commas")
]
HostNames = Annotated[
    tuple[str, ...], BeforeValidator(_host_names), Allowed("host names, or *.DOMAIN, separated by commas")
]
Origins = Annotated[
    tuple[str, ...], BeforeValidator(_origins), Allowed("SCHEME://HOST[:PORT], SCHEME://* or *, separated by commas")
]
Size = Annotated[
    ByteSize, BeforeValidator(_size), Allowed("a number of bytes, as in 200G; K, M, G, T are powers of 1024")
]
GpuMaskField = Annotated[GpuMask, BeforeValidator(_mask), Allowed("GPU indices separated by commas, or cpu")]
PathList = Annotated[tuple[Path, ...], BeforeValidator(_paths), Allowed("absolute paths, separated by commas")]
HomePath = Annotated[Path, AfterValidator(_expanded)]
