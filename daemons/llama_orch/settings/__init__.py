"""Settings: parsing, validation, `--check-config`, environment files and manual pages from one declaration each."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_orch.settings.declaration import Example, Var, rule
    from llama_orch.settings.loading import ConfigurationError, Problem, Settings
    from llama_orch.settings.types import Address, Flag, Integer, LogLevels, Token

__all__ = [
    "Address",
    "ConfigurationError",
    "Example",
    "Flag",
    "Integer",
    "LogLevels",
    "Problem",
    "Settings",
    "Token",
    "Var",
    "rule",
]
_MODULES = ("declaration", "loading", "types")


def __getattr__(name: str) -> object:
    """Import what this package exports on first use: orchctl needs only the names of variables."""
    if name in __all__:
        for module in (import_module(f"{__name__}.{each}") for each in _MODULES):
            if name in vars(module):
                return vars(module)[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
