"""Parse RUST_LOG: `info,queen-rbee=debug,pool_managerd::handoff=trace`.

Targets are mapped to Python's logger names; `-`, `_` and `::` are accepted. As in Rust, a directive applies to all
targets with its target as a prefix: `pool_managerd::handoff` also applies to pool_managerd.handoffs.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

TRACE = 5
NAMES: Mapping[str, int] = MappingProxyType(
    {"trace": TRACE, "debug": 10, "info": 20, "warn": 30, "warning": 30, "error": 40, "off": 100}
)
PACKAGES = ("queen_rbee", "pool_managerd", "engine_provisioner", "llama_orch")


@dataclass(frozen=True)
class Levels:
    """A default level and the levels of single loggers, as Python's numbers."""

    text: str
    default: int
    loggers: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return self.text

    @property
    def lowest(self) -> int:
        """The lowest level of any logger."""
        return min([self.default, *(level for _target, level in self.loggers)])

    def of(self, *names: str) -> int:
        """Return the level of a logger with these names.

        The longest directive that is a prefix of one of the names applies; of several equally long ones, the last.
        """
        longest, found = 0, self.default
        for target, level in self.loggers:
            if len(target) >= longest and any(name.startswith(target) for name in names):
                longest, found = len(target), level
        return found


def parse_levels(text: str) -> Levels:
    """Parse RUST_LOG. Raises ValueError that names the invalid directive."""
    default, loggers = NAMES["info"], []
    for directive in filter(None, (part.strip() for part in text.split(","))):
        target, equals, level = directive.rpartition("=")
        known = NAMES.get(level.strip().lower())
        if known is not None:
            if equals:
                loggers.append((_logger(target), known))
            else:
                default = known
        elif equals or not _logger(directive).startswith(PACKAGES):
            raise ValueError(f"contains an invalid directive: {directive!r}")
        else:  # a bare target means trace, as in env_logger; only our packages, to catch misspelt levels
            loggers.append((_logger(directive), TRACE))
    return Levels(text, default, tuple(loggers))


def _logger(target: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w:.-]*", target.strip()):
        raise ValueError(f"contains an invalid target: {target!r}")
    return target.strip().replace("::", ".").replace("-", "_")
