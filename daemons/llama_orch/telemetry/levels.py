"""RUST_LOG's own syntax: `info,queen-rbee=debug,pool_managerd::handoff=trace`.

Owns the parsing and the mapping to Python's logger names; `-`, `_` and `::` are taken as people write them. As in Rust,
a directive is for all targets that begin with its own: `pool_managerd::handoff` for pool_managerd.handoffs, too.
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
    """A default level and the levels of single loggers, in Python's numbers."""

    text: str
    default: int
    loggers: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return self.text

    @property
    def lowest(self) -> int:
        """The level below which nothing is wanted of any logger."""
        return min([self.default, *(level for _target, level in self.loggers)])

    def of(self, *names: str) -> int:
        """The level of the logger with these names: that of the longest directive which one of them begins with, the
        last one of several as long."""
        longest, found = 0, self.default
        for target, level in self.loggers:
            if len(target) >= longest and any(name.startswith(target) for name in names):
                longest, found = len(target), level
        return found


def parse_levels(text: str) -> Levels:
    """Parse RUST_LOG. Raises ValueError that names the directive that is not understood."""
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
            raise ValueError(f"has a directive that is not understood: {directive!r}")
        else:  # a bare target, as env_logger reads it: everything of it; of ours, or a misspelt level would be one
            loggers.append((_logger(directive), TRACE))
    return Levels(text, default, tuple(loggers))


def _logger(target: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][\w:.-]*", target.strip()):
        raise ValueError(f"has a target that is not understood: {target!r}")
    return target.strip().replace("::", ".").replace("-", "_")
